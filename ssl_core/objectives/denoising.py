"""Denoising sequence-to-sequence. Imports without torch.

Spans of a document are taken out or covered; an encoder reads the damaged text, and a decoder writes the whole one
(BART) or only the missing spans (T5). The encoder learns to understand, the decoder to write, both from texts alone.

Loss, x~ the damaged text, y what is to be written:

    loss = -mean over i of log p(y_i | y_1 .. y_(i-1), x~)

When to use it: before translation or summaries, which keep the decoder; pretraining on the texts of both languages
together needs no pairs. For vectors or classes alone it costs more than it gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssl_core.objectives.base import Objective, refuse_causal, refuse_undecodable

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Batch
    from ssl_core.corruption import Corruption
    from ssl_core.encoders.base import Encoder
    from ssl_core.evaluation.samples import Show
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets

_SHARE = {"infilling": 0.3, "span_corruption": 0.15}
_SHOWN = 256
"""Tokens of a sample."""


class Denoising(Objective):
    """Take spans out of a document and let a decoder, which reads the encoder by cross-attention, write what was there.

    `infilling` is BART's: each span becomes one mask token (one of no tokens is put between two), and the whole
    document is written again. BART's shuffled sentences are left out: a row of tokens does not say where one ends.
    `span_corruption` is T5's: each span becomes a sentinel of its own, and only sentinels and spans are written, so a
    step costs less. Sentinels are no entries of the tokenizer but rows of a small table beside the decoder: a prepared
    dataset and an imported model go with either noise.

    Rows are packed; no token sees another document, in the encoder, in the decoder or from one to the other. The output
    layer is the token embedding. The model keeps its decoder, for tasks that write. Metrics: `accuracy` (of all that is
    written), `masked_accuracy` (of the tokens taken out), `perplexity`.
    """

    name: Literal["denoising"] = "denoising"
    noise: Literal["infilling", "span_corruption"] = Field(default="infilling", description="BART's or T5's")
    noise_probability: float | None = Field(
        default=None, ge=0.05, le=0.5,
        description="share of a document's tokens that is taken out; None = the paper's, infilling 0.30, T5 0.15",
    )  # fmt: skip
    mean_span: float = Field(default=3.0, ge=1, le=20, description="tokens of a span on average; both papers: 3")
    decoder_depth: int = Field(default=0, ge=0, le=101, description="layers of the decoder; 0 = as many as the encoder")

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    views: ClassVar[tuple[str, ...]] = ("packed",)
    encoders: ClassVar[tuple[str, ...]] = ("transformer",)
    paper: ClassVar[str] = (
        "BART, Lewis et al. 2019, https://arxiv.org/abs/1910.13461; T5, Raffel et al. 2020, "
        "https://arxiv.org/abs/1910.10683"
    )
    constant_wins: ClassVar[bool] = False
    rate: ClassVar[float] = 0.4

    def preparation(self, suited: Modality) -> Modality:
        """With capitals: a decoder writes texts."""
        return suited.model_copy(update={"lowercase": False})

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """BART's shape; on a CPU one with norms before the layers, which does not collapse at the start."""
        from ssl_core.backbones import BACKBONES

        return BACKBONES["text-bart-base" if queue == "gpu" else "text-mini"]

    def check(self, backbone: EncoderSpec) -> None:
        """The encoder sees both sides; the decoder is of its shape, without windows, and shares its token table."""
        refuse_causal(self.name, backbone)
        refuse_undecodable(self.name, backbone)

    def decoder_layers(self, backbone: EncoderSpec) -> int:
        """Its decoder's."""
        return self.decoder_depth or backbone.depth

    def build(self, encoder: Encoder) -> Nets:
        """With a decoder and, for `span_corruption`, as many sentinels as a row can need."""
        from ssl_core.denoise import writer_nets

        return writer_nets(encoder, self.decoder_depth, self._corruption().sentinels(encoder.facts["max_length"]))

    def _corruption(self) -> Corruption:
        from ssl_core.corruption import Corruption

        share = _SHARE[self.noise] if self.noise_probability is None else self.noise_probability
        return Corruption(self.noise, share, self.mean_span)

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of what is to be written, for (B, T) packed rows."""
        from ssl_core.batch import one_text
        from ssl_core.denoise import denoising_loss

        corrupted = self._corruption()(one_text(batch.views), batch.seeds, nets.encoder.facts)
        loss, accuracy, masked = denoising_loss(nets, corrupted)
        return {"loss": loss, "accuracy": accuracy, "masked_accuracy": masked, "perplexity": loss.detach().exp()}

    def samples(self, nets: Nets, batch: Batch, show: Show) -> None:
        """The first document of each row: what was read, what was written, and what was there."""
        from ssl_core.batch import one_text
        from ssl_core.corruption import only_first
        from ssl_core.denoise import spelled, write

        facts = nets.encoder.facts
        size, end = facts["vocab_size"], facts["sep_id"]
        corrupted = only_first(self._corruption()(one_text(batch.views), batch.seeds, facts), _SHOWN)
        told = write(nets, corrupted.source, end, corrupted.targets.shape[1])
        lines = []
        for row in range(len(told)):
            read = corrupted.source.ids[row][corrupted.source.segments[row] >= 0]
            true = corrupted.targets[row][corrupted.written.segments[row] >= 0]
            for name, ids in (("read", read), ("wrote", told[row]), ("true", true)):
                lines.append(f"{name}: {spelled(ids, size, end, show.words)}")
            lines.append("")
        show.text("fills", lines, "documents of the pool as read, as written by the decoder and as they were")
