"""wav2vec 2.0: hidden stretches of sound are told from other stretches of the same clip. Imports without torch.

A conv net turns the waveform into frames; spans of frames are hidden; a Transformer reads the rest and must say at
each hidden place which of several codes is the true one. The codes are learned beside it: a quantiser sorts frames
into entries of two codebooks, and is kept from using only a few.

Loss, c the Transformer's output at a hidden frame, q its own code, Q that code and K distractors of the same clip, t
the temperature, d the diversity weight:

    loss = -mean of log( exp(cos(c, q) / t) / sum over q' in Q of exp(cos(c, q') / t) )
           + d * (entries - perplexity of their use) / entries

When to use it: for speech, from the waveform, with tens of hours and a GPU, or to go on from a public wav2vec 2.0
model. A step on a CPU costs about three times one of SimCLR's, and a few thousand clips are too few.
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
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets


class Wav2Vec2(Objective):
    """A Transformer over a waveform's frames, some of them hidden, finds the quantised frame that belongs there.

    Metrics: `contrast_accuracy`, the share of hidden frames whose own code is nearest; `codes`, the entries in use,
    summed over the groups.
    """

    name: Literal["wav2vec2"] = "wav2vec2"
    mask_probability: float = Field(
        default=0.65, ge=0.05, le=0.95, description="share of frames in spans, overlaps counted twice"
    )
    mask_span: int = Field(default=10, ge=1, le=64, description="frames of a span; at most a quarter of a clip's")
    distractors: int = Field(default=100, ge=1, le=500, description="other hidden frames that each is told from")
    temperature: float = Field(default=0.1, ge=0.01, le=2, description="divides the cosines")
    groups: int = Field(default=2, ge=1, le=8, description="codebooks")
    entries: int = Field(default=320, ge=2, le=2048, description="of each codebook")
    code_width: int = Field(default=256, ge=16, le=2048, description="numbers of a code, of all groups together")
    diversity: float = Field(default=0.1, ge=0, le=10, description="weight of the loss that keeps all entries in use")
    gumbel_start: float = Field(default=2.0, ge=0.05, le=10, description="temperature of choosing entries at first")
    gumbel_end: float = Field(default=0.5, ge=0.05, le=10, description="and at the end; it falls by equal ratios")

    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    views: ClassVar[tuple[str, ...]] = ("part",)
    encoders: ClassVar[tuple[str, ...]] = ("wave",)
    comparable_loss: ClassVar[bool] = False
    paper: ClassVar[str] = "wav2vec 2.0, Baevski et al. 2020, https://arxiv.org/abs/2006.11477"

    @model_validator(mode="after")
    def _fits_together(self) -> Wav2Vec2:
        if self.code_width % self.groups:
            raise ValueError(f"code_width {self.code_width} must be divisible by the groups ({self.groups})")
        if self.gumbel_end > self.gumbel_start:
            raise ValueError(f"gumbel_end {self.gumbel_end} is over gumbel_start {self.gumbel_start}: it must fall")
        return self

    def preparation(self, suited: Modality) -> Modality:
        """Waveforms."""
        return suited.model_copy(update={"representation": "waveform"})

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """A small one on a CPU, the paper's base model on a GPU."""
        from ssl_core.backbones import BACKBONES

        return BACKBONES["audio-wave-base" if queue == "gpu" else "audio-wave-tiny"]

    def build(self, encoder: Encoder) -> Nets:
        """With a quantiser and two projections. Raises SpecError for clips of fewer than four frames."""
        from ssl_core.nets import Nets
        from ssl_core.wave_contrast import WaveContrast, wave_encoder

        sizes = (self.groups, self.entries, self.code_width)
        head = WaveContrast(wave_encoder(encoder), sizes)
        head.quantiser.temperature.fill_(self.gumbel_start)
        return Nets(encoder, head=head)

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Equation 2 of the paper over the hidden frames of (B, S) waveforms, their mean."""
        from torch import Tensor as Waves

        from ssl_core.wave_contrast import Drawn, wave_loss

        (waves,) = batch.views
        assert isinstance(waves, Waves)
        drawn = Drawn.of(nets, waves, batch.seeds, (self.mask_probability, self.mask_span), self.distractors)
        return wave_loss(nets, waves, drawn, self.temperature, self.diversity)

    def after_step(self, nets: Nets, progress: float) -> None:
        """The choice of entries gets harder."""
        from ssl_core.wave_contrast import WaveContrast

        head = nets.parts["head"]
        assert isinstance(head, WaveContrast)
        ratio = self.gumbel_end / self.gumbel_start
        head.quantiser.temperature.fill_(self.gumbel_start * ratio**progress)
