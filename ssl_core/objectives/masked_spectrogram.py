"""Masked spectrogram: most of a log-mel picture is hidden and told from the rest. Imports without torch.

As MAE, of sounds: a clip becomes a log-mel picture (time by pitch), four fifths of its patches are taken away, and the
loudness of what is missing is told from the rest. The encoder computes the visible patches alone.

Loss, x the values of a hidden patch, y what the decoder tells:

    loss = mean over hidden patches of |y - x|^2 / values of a patch

When to use it: for many hours of varied sound (environments, music, machines) and a GPU, followed by fine-tuning. On
2,700 short clips and a few CPU minutes VICReg on the same spectrograms is far ahead.
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


class MaskedSpectrogram(Objective):
    """AudioMAE: a masked autoencoder of log-mel spectrograms, four in five of their patches hidden at random.

    The encoder computes the visible patches alone; the decoder looks at all places, where the paper's looks at windows
    in some layers. Metric: `explained`, the share of the hidden values' variance that is told (0 = no better than their
    mean).
    """

    name: Literal["masked_spectrogram"] = "masked_spectrogram"
    mask_ratio: float = Field(default=0.8, ge=0.05, le=0.95, description="share of the patches that is hidden")
    normalise: bool = Field(default=False, description="each patch by its own mean and deviation: what is loud is lost")
    decoder_width: int = Field(default=128, ge=16, le=4096, description="AudioMAE with a ViT-Base: 512")
    decoder_depth: int = Field(default=2, ge=1, le=24, description="AudioMAE with a ViT-Base: 16")
    decoder_heads: int = Field(default=4, ge=1, le=64, description="AudioMAE with a ViT-Base: 16")

    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    views: ClassVar[tuple[str, ...]] = ("part",)
    encoders: ClassVar[tuple[str, ...]] = ("vit",)
    paper: ClassVar[str] = "AudioMAE, Huang et al. 2022, https://arxiv.org/abs/2207.06405"
    constant_wins: ClassVar[bool] = False

    @model_validator(mode="after")
    def _heads_fit(self) -> MaskedSpectrogram:
        if self.decoder_width % (4 * self.decoder_heads):
            text = f"decoder_width {self.decoder_width} must be divisible by four times the decoder_heads"
            raise ValueError(f"{text} ({self.decoder_heads})")
        return self

    def preparation(self, suited: Modality) -> Modality:
        """Log-mel pictures."""
        return suited.model_copy(update={"representation": "log_mel"})

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """A ViT whose patches fit the pictures."""
        from ssl_core.modalities.audio import AudioModality
        from ssl_core.patch_sizes import fitted_vit

        assert isinstance(modality, AudioModality)
        return fitted_vit("vit-base" if queue == "gpu" else "vit-tiny", modality.mels, modality.frames)

    def build(self, encoder: Encoder) -> Nets:
        """With a decoder, which is not part of the exported encoder. Raises SpecError for overlapping patches."""
        from ssl_core.nets import Nets
        from ssl_core.patch_predictor import PatchPredictor, patch_encoder, predictor_spec

        vit = patch_encoder(encoder)
        spec = predictor_spec(self.decoder_width, self.decoder_depth, self.decoder_heads)
        return Nets(encoder, decoder=PatchPredictor(encoder.embed_dim, spec, vit.grid, vit.spec.patch_size**2))

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error at the hidden patches of (B, 1, mels, frames) pictures."""
        from ssl_core.batch import stacked
        from ssl_core.patch_predictor import masked_pixel_loss

        return masked_pixel_loss(nets, stacked(batch.views), batch.seeds, self.mask_ratio, self.normalise)

    def samples(self, nets: Nets, batch: Batch, show: Show) -> None:
        """Spectrograms, what was seen of them, and what was made of it."""
        from ssl_core.batch import stacked
        from ssl_core.patch_predictor import reconstruct

        pictures = stacked(batch.views)
        seen, made = reconstruct(nets, pictures, batch.seeds, self.mask_ratio, self.normalise)
        caption = "each row one clip: its spectrogram, what the encoder saw of it, what the decoder made of that"
        show.pictures("reconstructions", [pictures, seen, made], caption)
