"""From one text to another, by an encoder and a decoder. Imports without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ssl_core.modalities import MODALITIES
from ssl_core.objectives.base import refuse_undecodable
from ssl_core.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Batch, Tokens
    from ssl_core.encoders.base import Encoder
    from ssl_core.evaluation.samples import Show
    from ssl_core.export import BaseModel
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets


class Translation(Task):
    """Sequence to sequence: the encoder reads a text, a decoder writes its `translation`, found by beam search.

    A model pretrained with `denoising` gives both halves. Of another one the decoder's self-attention and feed-forward
    layers begin as copies of the encoder's (Rothe et al. 2020), unless `decoder_start` says `fresh`. Input and output
    layers of the decoder are the encoder's token table.
    """

    name: Literal["translation"] = "translation"
    decoder_depth: int = Field(
        default=0, ge=0, le=64, description="layers of the decoder; 0 = as the pretrained one, or as the encoder"
    )
    decoder_start: Literal["copied", "fresh"] = Field(
        default="copied", description="of a decoder, where the pretrained model has none"
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="of what each layer adds, in both halves")
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    beams: int = Field(default=4, ge=1, le=32, description="of the search; 1 = always the likeliest token")
    length_penalty: float = Field(
        default=1.0, ge=-5, le=5,
        description="a text's log-likelihood is divided by its length to this power: greater = longer texts",
    )  # fmt: skip
    max_tokens: int = Field(default=128, ge=1, le=4096, description="to write, at most")

    modalities: ClassVar[tuple[str, ...]] = tuple(n for n, one in MODALITIES.items() if one.part == "word")
    views: ClassVar[tuple[str, ...]] = ("plain",)
    target: ClassVar[str] = "translation"
    least_classes: ClassVar[int] = 0
    usual_batch: ClassVar[int] = 32
    rate: ClassVar[float] = 0.5
    pretrained_rate: ClassVar[float] = 0.6
    paper: ClassVar[str] = "Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Rothe et al. 2020, https://arxiv.org/abs/1907.12461"
    best_metric: ClassVar[str] = "log_likelihood"

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """BART's shape; on a CPU one with norms before the layers, which learns sooner."""
        from ssl_core.backbones import BACKBONES

        return BACKBONES["text-bart-base" if queue == "gpu" else "text-mini"]

    def preparation(self, suited: Modality) -> Modality:
        """With capitals: it writes texts."""
        return suited.model_copy(update={"lowercase": False})

    def check(self, backbone: EncoderSpec) -> None:
        """A decoder must be able to follow the encoder's shape."""
        refuse_undecodable(self.name, backbone)

    def decoder_layers(self, backbone: EncoderSpec) -> int:
        """As many as are asked for, else as the encoder has."""
        return self.decoder_depth or backbone.depth

    def settled(self, base: BaseModel | None) -> Task:
        """With the depth of the decoder that the pretrained model has."""
        if self.decoder_depth or base is None or not base.decoder_depth:
            return self
        return self.model_copy(update={"decoder_depth": base.decoder_depth})

    def build(self, encoder: Encoder, classes: list[str]) -> Nets:
        """With a decoder."""
        from ssl_core.denoise import writer_nets
        from ssl_core.dropout import Dropout
        from ssl_core.heads import FinetunedNets

        nets = FinetunedNets(encoder, **dict(writer_nets(encoder, self.decoder_depth, 0).parts.items()))
        for module in nets.modules():
            if isinstance(module, Dropout):
                module.p = self.dropout
        return nets

    def adopt(self, nets: Nets, base: BaseModel) -> None:
        """The decoder, or what the encoder has for it.

        Raises:
            SpecError, CheckpointError: as `BaseModel.load_decoder`.
        """
        from ssl_core.denoise import decoder_of
        from ssl_core.encoders.decoder import start_as

        if base.decoder_depth:
            base.load_decoder(decoder_of(nets), "task.decoder_depth")
        elif self.decoder_start == "copied":
            start_as(decoder_of(nets), nets.encoder)

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Mean cross-entropy of each token of the translation given those before it; also `accuracy`."""
        from ssl_core import distributed
        from ssl_core.cross_entropy import cross_entropy

        losses, right = cross_entropy(*self._told(nets, batch), self.label_smoothing)
        count = distributed.mean(losses.new_tensor(float(len(losses)))).clamp(min=1)
        return {"loss": losses.sum() / count, "accuracy": right.sum() / count}

    def glance(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """`log_likelihood` (B,) of the translation that is true, and its `tokens` (B,)."""
        import torch

        logits, told = self._told(nets, batch)
        rows = self._written(nets, batch)[2]
        each = logits.float().log_softmax(1).gather(1, told[:, None])[:, 0]
        sums = torch.zeros(len(batch.seeds), device=each.device).index_add(0, rows, each)
        return {"log_likelihood": sums, "tokens": torch.bincount(rows, minlength=len(batch.seeds))}

    def predict(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """`written` (B, C) int64, -1 behind; and what `glance` says, where the truth is known."""
        import torch

        from ssl_core.batch import one_text
        from ssl_core.beam import Search
        from ssl_core.denoise import translate

        facts = nets.encoder.facts
        how = Search(self.beams, self.length_penalty, min(self.max_tokens, facts["max_length"]), facts["sep_id"])
        texts = translate(nets, one_text(batch.views), how)
        written = torch.full((len(texts), max(1, *map(len, texts))), -1, device=batch.seeds.device)
        for row, ids in enumerate(texts):
            written[row, : len(ids)] = written.new_tensor(ids)
        known = self.glance(nets, batch) if "translation" in batch.targets else {}
        return {"written": written, **known}

    def spelled(self, outputs: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
        """Also `text` (B, L) int64: what is written, as UTF-8, -1 behind."""
        import torch

        from ssl_core.data.tokenizer import load

        if "written" not in outputs:
            return outputs
        codec = load(folder / "tokenizer.json")
        rows = [[id for id in row if id >= 0] for row in outputs["written"].tolist()]
        texts = [list(text.encode("utf-8")) for text in codec.decode_batch(rows)]
        spelled = torch.full((len(texts), max([1, *map(len, texts)])), -1)
        for row, letters in enumerate(texts):
            spelled[row, : len(letters)] = torch.tensor(letters, dtype=torch.int64)
        return {**outputs, "text": spelled}

    def metrics(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float]:
        """`log_likelihood` of a token, and where texts were written `bleu`, `bleu_lowercase` and `chrf`: sacreBLEU's
        (Post 2018, https://aclanthology.org/W18-6319) of the whole split, 0 to 100."""
        found = {"log_likelihood": float(outputs["log_likelihood"].sum() / outputs["tokens"].sum().clamp(min=1))}
        if "text" not in outputs:
            return found
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        wrote, true = _strings(outputs["text"]), _strings(truth["reference"])
        return found | {
            "bleu": BLEU().corpus_score(wrote, [true]).score,
            "bleu_lowercase": BLEU(lowercase=True).corpus_score(wrote, [true]).score,
            "chrf": CHRF().corpus_score(wrote, [true]).score,
        }

    def likelihood(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
        """Of the true translation, a token's: the geometric mean."""
        return (outputs["log_likelihood"] / outputs["tokens"].clamp(min=1)).exp()

    def answer(self, outputs: dict[str, Tensor], row: int, classes: list[str]) -> dict[str, Any]:
        """`{"translation": the text}`."""
        return {"translation": _strings(outputs["text"][row : row + 1])[0]}

    def samples(self, nets: Nets, batch: Batch, classes: list[str], show: Show) -> None:
        """Texts with what was written and what is true."""
        from ssl_core.batch import one_text

        tokens = one_text(batch.views)
        wrote = _strings(self.spelled(self.predict(nets, batch), show.prepared)["text"])
        true = _strings(batch.targets["reference"])
        lines = []
        for row, (told, known) in enumerate(zip(wrote, true, strict=True)):
            source = show.words(tokens.ids[row][tokens.segments[row] >= 0])
            lines += [f"source: {source}", f"wrote:  {told}", f"true:   {known}", ""]
        show.text("translations", lines, "held-out texts, what the model wrote and what is true")

    def _told(self, nets: Nets, batch: Batch) -> tuple[Tensor, Tensor]:
        """(N, V) logits at every token of the translations, their ends among them, and (N,) those tokens."""
        import torch.nn.functional as F

        from ssl_core.batch import one_text
        from ssl_core.denoise import decoder_of, embedded, read, table

        written, targets, _ = self._written(nets, batch)
        source = one_text(batch.views)
        hidden = decoder_of(nets)(embedded(nets, written.ids), written, read(nets, source), source)
        real = written.segments >= 0
        return F.linear(hidden[real], table(nets)), targets[real]

    def _written(self, nets: Nets, batch: Batch) -> tuple[Tokens, Tensor, Tensor]:
        """What the decoder reads (B, C): the end entry, then the translation; what comes after each; and (N,) the row
        of each real token."""
        import torch
        import torch.nn.functional as F

        from ssl_core.batch import Tokens

        facts = nets.encoder.facts
        end = int(facts["sep_id"])
        ids = batch.targets["translation"][:, : int(facts["max_length"]) - 1]
        lengths = (ids >= 0).sum(1)
        slots = torch.arange(ids.shape[1] + 1, device=ids.device)
        real = slots <= lengths[:, None]
        before = F.pad(ids.clamp(min=0), (1, 0), value=end)
        after = torch.where(slots == lengths[:, None], end, F.pad(ids.clamp(min=0), (0, 1)))
        segments = torch.where(real, 0, -1).to(torch.int32)
        written = Tokens(torch.where(real, before, 0), segments, torch.where(real, slots, 0))
        return written, after, real.nonzero(as_tuple=True)[0]


def _strings(spelled: Tensor) -> list[str]:
    return [bytes(letter for letter in row if letter >= 0).decode("utf-8", "replace") for row in spelled.tolist()]
