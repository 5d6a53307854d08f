"""MAE: most of a picture is hidden, and its pixels are told from the rest. Imports without torch.

Three quarters of a picture's patches are taken away at random. The encoder computes the others alone, which makes a
step cheap; a small decoder sees its vectors with placeholders between them, and tells the pixels of what was taken.
The decoder is thrown away.

Loss, x the pixels of a hidden patch, by their own mean and deviation where `normalise` is set, y what the decoder
tells:

    loss = mean over hidden patches of |y - x|^2 / pixels of a patch

When to use it: for pools of pictures large enough for a ViT, followed by fine-tuning everything; a linear probe does
less with its features than with those of contrasts. No augmentation is needed, so it fits pictures in which colour or
cut carry the meaning (medicine, satellites). On small pools and CPU minutes SimCLR is far ahead.
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
    from ssl_core.evaluation.samples import Show
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets


class MAE(Objective):
    """Masked autoencoder: the encoder computes the visible patches alone, a small decoder tells the hidden ones.

    A picture is cut at random and perhaps mirrored, its colours left alone. Metric: `explained`, the share of the
    hidden pixels' variance that is told (0 = no better than their mean).
    """

    name: Literal["mae"] = "mae"
    mask_ratio: float = Field(default=0.75, ge=0.05, le=0.95, description="share of the patches that is hidden")
    normalise: bool = Field(default=True, description="each patch's pixels by their own mean and deviation: table 1d")
    decoder_width: int = Field(default=128, ge=16, le=4096, description="MAE with a ViT-Large: 512")
    decoder_depth: int = Field(default=2, ge=1, le=24, description="MAE with a ViT-Large: 8")
    decoder_heads: int = Field(default=4, ge=1, le=64, description="MAE with a ViT-Large: 16")

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    views: ClassVar[tuple[str, ...]] = ("crop",)
    encoders: ClassVar[tuple[str, ...]] = ("vit",)
    paper: ClassVar[str] = "MAE, He et al. 2021, https://arxiv.org/abs/2111.06377"
    constant_wins: ClassVar[bool] = False

    @model_validator(mode="after")
    def _heads_fit(self) -> MAE:
        if self.decoder_width % (4 * self.decoder_heads):
            text = f"decoder_width {self.decoder_width} must be divisible by four times the decoder_heads"
            raise ValueError(f"{text} ({self.decoder_heads})")
        return self

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """A ViT whose patches fit the pictures."""
        from ssl_core.patch_sizes import square_vit

        return square_vit("vit-base" if queue == "gpu" else "vit-tiny", modality.slots("plain"))

    def build(self, encoder: Encoder) -> Nets:
        """With a decoder, which is not part of the exported encoder. Raises SpecError for overlapping patches."""
        from ssl_core.nets import Nets
        from ssl_core.patch_predictor import PatchPredictor, patch_encoder, predictor_spec

        vit = patch_encoder(encoder)
        spec = predictor_spec(self.decoder_width, self.decoder_depth, self.decoder_heads)
        pixels = vit.spec.patch_size**2 * vit.facts["channels"]
        return Nets(encoder, decoder=PatchPredictor(encoder.embed_dim, spec, vit.grid, pixels))

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error at the hidden patches of (B, C, H, W) pictures."""
        from ssl_core.batch import stacked
        from ssl_core.patch_predictor import masked_pixel_loss

        return masked_pixel_loss(nets, stacked(batch.views), batch.seeds, self.mask_ratio, self.normalise)

    def samples(self, nets: Nets, batch: Batch, show: Show) -> None:
        """Pictures, what was seen of them, and what was made of it."""
        from ssl_core.batch import stacked
        from ssl_core.patch_predictor import reconstruct

        pictures = stacked(batch.views)
        seen, made = reconstruct(nets, pictures, batch.seeds, self.mask_ratio, self.normalise)
        caption = "each row one sample of the pool: the picture, what the encoder saw, what the decoder made of it"
        show.pictures("reconstructions", [pictures, seen, made], caption)
