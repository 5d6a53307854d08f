"""I-JEPA: what a teacher sees in hidden blocks is told from the rest. Imports without torch.

A picture is cut into patches. A teacher sees all of them; the encoder sees some, outside of a few hidden blocks; a
predictor tells, block by block, what the teacher's features are there. Features are told, not pixels, so that what
cannot be known (a texture's grain) need not be.

Loss, s the teacher's features of a hidden patch, layer-normalised, p what is told of it:

    loss = mean over hidden patches of smooth L1(p, s)
    teacher <- m * teacher + (1 - m) * encoder        after each step, m rising evenly to 1

When to use it: as MAE, where a linear probe or nearest neighbours are wanted rather than full fine-tuning, and for
pictures that augmentation would spoil. It needs a ViT with enough patches to hide blocks of, and hours rather than
minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from ssl_core.objectives.base import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.encoders.vit import ViT
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets
    from ssl_core.patches import Blocks


class IJEPA(Objective):
    """Joint-embedding prediction: features of hidden blocks, not pixels, and no augmentation but a crop and a flip.

    All blocks of a run have one size and lie or stand at random, so that every sample has as many tokens as any other;
    the context is as many patches as are left when no two blocks overlap, at random among those outside of them (the
    authors cut it to the fewest of a batch, which is about as many). Metrics: `target_variance` (of the teacher's
    patches over the batch, before they are normalised; 0 is collapse), `explained` (share of the targets' variance that
    is told), `teacher_momentum`.
    """

    name: Literal["ijepa"] = "ijepa"
    targets: int = Field(default=4, ge=1, le=8, description="blocks to tell, one by one")
    target_min: float = Field(default=0.15, ge=0.01, le=0.5, description="a block has the middle of both shares")
    target_max: float = Field(default=0.2, ge=0.01, le=0.5)
    target_aspect: float = Field(default=1.5, ge=1, le=4, description="how much longer than wide a block may be")
    momentum: float = Field(default=0.996, ge=0, le=1, description="the teacher's at the start, rising evenly to 1")
    predictor_width: int = Field(default=96, ge=16, le=4096, description="I-JEPA with a ViT-Huge: 384")
    predictor_depth: int = Field(default=3, ge=1, le=24, description="I-JEPA with a ViT-Huge: 12")
    predictor_heads: int = Field(default=3, ge=1, le=64, description="I-JEPA: as many as the encoder has")

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    views: ClassVar[tuple[str, ...]] = ("crop",)
    encoders: ClassVar[tuple[str, ...]] = ("vit",)
    paper: ClassVar[str] = "I-JEPA, Assran et al. 2023, https://arxiv.org/abs/2301.08243"
    comparable_loss: ClassVar[bool] = False

    @model_validator(mode="after")
    def _fits(self) -> IJEPA:
        if self.target_min > self.target_max:
            raise ValueError(f"target_min {self.target_min} is greater than target_max {self.target_max}")
        if self.predictor_width % (4 * self.predictor_heads):
            text = f"predictor_width {self.predictor_width} must be divisible by four times the predictor_heads"
            raise ValueError(f"{text} ({self.predictor_heads})")
        return self

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """A ViT without class tokens whose patches fit the pictures."""
        from ssl_core.patch_sizes import square_vit

        found = square_vit("vit-base" if queue == "gpu" else "vit-tiny", modality.slots("plain"))
        return found.model_copy(update={"name": "custom", "class_tokens": 0})

    def build(self, encoder: Encoder) -> Nets:
        """With a predictor and a teacher. Raises SpecError for overlapping patches, or too few of them."""
        from ssl_core.nets import Nets
        from ssl_core.patch_predictor import PatchPredictor, patch_encoder, predictor_spec
        from ssl_core.teacher import Teacher

        vit = patch_encoder(encoder)
        self._blocks(vit)
        spec = predictor_spec(self.predictor_width, self.predictor_depth, self.predictor_heads)
        predictor = PatchPredictor(encoder.embed_dim, spec, vit.grid, encoder.embed_dim)
        return Nets(encoder, predictor=predictor, teacher=Teacher(encoder=encoder))

    def _blocks(self, vit: ViT) -> Blocks:
        from ssl_core.errors import SpecError
        from ssl_core.patches import Blocks

        try:
            return Blocks.of(vit.grid, self.targets, (self.target_min, self.target_max), self.target_aspect)
        except ValueError as error:
            raise SpecError("encoder_does_not_fit", str(error), "backbone.patch_size") from error

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Smooth L1 between the predicted and the teacher's normalised patches of (B, C, H, W), as in the authors' code
        (the paper's equation 1 has the squared distance)."""
        import torch
        import torch.nn.functional as F

        from ssl_core.batch import stacked
        from ssl_core.patch_predictor import patch_encoder
        from ssl_core.patches import take
        from ssl_core.teacher import teacher_of

        pictures, vit, teacher = stacked(batch.views), patch_encoder(nets.encoder), teacher_of(nets)
        context, targets = self._blocks(vit).draw(batch.seeds)
        with torch.no_grad():
            seen = patch_encoder(teacher.copies["encoder"]).encode(pictures).float()
            spread = seen.var((0, 1)).mean()
            wanted = take(F.layer_norm(seen, seen.shape[-1:]), targets.flatten(1)).reshape(-1, seen.shape[-1])
        # Each block is told by itself: T copies of a sample's context, one for each.
        repeated = torch.cat(vit.read(pictures, context), 1).repeat_interleave(self.targets, 0)
        places = context.repeat_interleave(self.targets, 0)
        told = nets.parts["predictor"](repeated, places, targets.flatten(0, 1)).float().reshape(wanted.shape)
        with torch.no_grad():
            explained = 1 - F.mse_loss(told, wanted) / wanted.var(0, correction=0).mean().clamp(min=1e-9)
        return {
            "loss": F.smooth_l1_loss(told, wanted),
            "explained": explained,
            "target_variance": spread,
            "teacher_momentum": teacher.momentum.clone(),
        }

    def after_step(self, nets: Nets, progress: float) -> None:
        """The teacher takes a step towards the student."""
        from ssl_core.teacher import teacher_of

        momentum = self.momentum + (1 - self.momentum) * min(1.0, progress)
        teacher_of(nets).follow({"encoder": nets.encoder}, momentum, progress)
