"""A class for each word of a text or each residue of a chain. Imports without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ssl_core.low_rank import Alpha, LowRank, Rank
from ssl_core.modalities import MODALITIES
from ssl_core.tasks.base import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ssl_core.answer_heads import Head
    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets
    from ssl_core.token_probe import Reading


class Tagging(Task):
    """A linear layer on the standardised vector of each tagged token.

    A word is told by its first token. What has no tag, or a masked one, takes no part in loss and score. Of a text or
    chain longer than the model reads (`max_length` tokens), only the part that is read is learned from, scored and
    answered. The modes are those of classification: `linear_probe` solves the layer on a frozen encoder, `full` starts
    from that solution and trains everything, `lora` low-rank adapters instead.
    """

    name: Literal["tagging"] = "tagging"
    mode: Literal["full", "lora", "linear_probe"] = Field(
        default="full", description="`linear_probe` keeps the encoder as it is, `lora` adapts it"
    )
    layers: Literal["last", "all"] = Field(
        default="last", description="`all`: the outputs of all layers side by side; a probe often reads the middle ones"
    )
    context: int = Field(
        default=0,
        ge=0,
        le=16,
        description="neighbours on either side whose vectors the layer reads too; helps where the encoder is small",
    )
    rank: Rank = 8
    alpha: Alpha = 16.0
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="full, lora: share of the target spread evenly")
    head_dropout: float = Field(default=0.0, ge=0, lt=1, description="full, lora: dropout before the linear layer")
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="`balanced`: a class counts by the inverse of its number of tags"
    )
    penalty: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="L2 penalty of the probe on standardised features, scikit-learn's 1 / C; "
        "null = the best of several on a fifth of the samples",
    )

    modalities: ClassVar[tuple[str, ...]] = tuple(name for name, one in MODALITIES.items() if one.part)
    views: ClassVar[tuple[str, ...]] = ("plain",)
    target: ClassVar[str] = "tags"
    paper: ClassVar[str] = "LP-FT, Kumar et al. 2022, https://arxiv.org/abs/2202.10054"
    best_metric: ClassVar[str] = "accuracy"

    def build(self, encoder: Encoder, classes: list[str]) -> Nets:
        """With a classifier over `classes`; a probe's encoder takes no gradient and stays in evaluation mode."""
        from ssl_core.heads import Classifier, FinetunedNets, FrozenNets

        head = Classifier(self._reading().width(encoder), len(classes), self.head_dropout)
        if self.mode == "linear_probe":
            return FrozenNets(encoder, classifier=head)
        return FinetunedNets(encoder, classifier=head)

    def low_rank(self) -> LowRank | None:
        """Of mode `lora`."""
        return LowRank(self.rank, self.alpha) if self.mode == "lora" else None

    def begin(self, nets: Nets, batches: Iterable[Batch]) -> bool:
        """Standardise the features, solve the linear layer; True for a probe, which needs no more."""
        from ssl_core.heads import classifier_of
        from ssl_core.logistic import class_weights, solve
        from ssl_core.token_probe import choose, tagged_features

        head = classifier_of(nets)
        found = tagged_features(nets.encoder, batches, self._reading())
        if self.class_weights == "balanced":
            head.class_weights.copy_(class_weights(found.labels, head.linear.out_features))
        head.standardise(found.vectors)
        found = found.standardised(head)
        penalty = self.penalty or choose(found, head.class_weights)
        head.assign(*solve(found.vectors, found.labels, head.class_weights, penalty))
        return self.mode == "linear_probe"

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Mean cross-entropy of the tagged tokens of the batch; also the training `accuracy`."""
        from ssl_core.heads import classifier_of
        from ssl_core.losses import class_loss
        from ssl_core.token_probe import aligned

        each = self._reading().logits(nets, batch.views[0])
        logits, known = each.flatten(0, 1), aligned(batch.targets["tags"], each.shape[1]).flatten()
        loss = class_loss(logits, known, classifier_of(nets).class_weights, self.label_smoothing)
        judged = known >= 0
        right = (logits.detach().argmax(1) == known) & judged
        return {"loss": loss, "accuracy": right.sum() / judged.sum().clamp(min=1)}

    def served(self, modality: Modality, items: list[Any], folder: Path) -> dict[str, NDArray[Any]]:
        """`marks` (B, L) bool, True where a word or residue begins that is answered for."""
        import numpy as np

        places = modality.first_tokens(items, folder)
        most = max((int(at.max(initial=0)) + 1 for at in places), default=1)
        marks = np.zeros((len(items), most), dtype=np.bool_)
        for row, at in enumerate(places):
            marks[row, at] = True
        return {"marks": marks}

    def predict(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """`probabilities` (B, T, classes) of every token, and of served items their `marks` (B, T)."""
        from ssl_core.token_probe import aligned

        logits = self._reading().logits(nets, batch.views[0])
        found = {"probabilities": logits.float().softmax(2)}
        if "marks" in batch.targets:
            found["marks"] = aligned(batch.targets["marks"], logits.shape[1], fill=0)
        return found

    def head(self, nets: Nets) -> Head | None:
        """Of each token's output: the classifier's logits; None where it reads more than that."""
        from ssl_core.answer_heads import Head, folded
        from ssl_core.heads import classifier_of

        if self.layers == "all" or self.context:
            return None
        layer = classifier_of(nets)
        return Head(layer, "logits", "token_classification", each_token=True, linear=folded(layer))

    def metrics(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float]:
        """Over all tagged tokens: `accuracy` (Q3 where there are three classes) and `macro_f1`; means over classes that
        occur, one against the rest, of `average_precision` and `auroc`."""
        from ssl_core.evaluation.ranking import auroc, average_precision
        from ssl_core.evaluation.scores import accuracy, macro_f1

        probabilities, labels = self._judged(outputs, truth)
        called = probabilities.argmax(1)
        return {
            "accuracy": accuracy(called, labels),
            "macro_f1": macro_f1(called, labels),
            "average_precision": average_precision(probabilities, labels),
            "auroc": auroc(probabilities, labels),
        }

    def calls(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The likeliest class of each tagged token, and its tag."""
        probabilities, labels = self._judged(outputs, truth)
        return probabilities.argmax(1), labels

    def _reading(self) -> Reading:
        from ssl_core.token_probe import Reading

        return Reading(self.layers == "all", self.context)

    def _judged(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        from ssl_core.token_probe import aligned

        probabilities = outputs["probabilities"]
        tags = aligned(truth["tags"], probabilities.shape[1])
        return probabilities[tags >= 0], tags[tags >= 0]

    def likelihood(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
        """The mean over each sample's tags."""
        from ssl_core.token_probe import aligned

        probabilities = outputs["probabilities"]
        tags = aligned(truth["tags"], probabilities.shape[1])
        judged = tags >= 0
        own = probabilities.gather(2, tags.clamp(min=0).unsqueeze(2)).squeeze(2)
        return own.masked_fill(~judged, 0).sum(1) / judged.sum(1).clamp(min=1)

    def marked(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tagged places alone are answered for."""
        from ssl_core.token_probe import aligned

        return {"marks": aligned(truth["tags"], outputs["probabilities"].shape[1]) >= 0}

    def answer(self, outputs: dict[str, Tensor], row: int, classes: list[str]) -> dict[str, Any]:
        """`{"tags": the likeliest of each word or residue that was read, "probabilities": {class: one for each}}`.

        `tags` is a string where every class is a letter, else a list."""
        probabilities = outputs["probabilities"][row][outputs["marks"][row]]
        tags = [classes[index] for index in probabilities.argmax(1).tolist()]
        letters = all(len(name) == 1 for name in classes)
        by_class = dict(zip(classes, probabilities.T.tolist(), strict=True))
        return {"tags": "".join(tags) if letters else tags, "probabilities": by_class}
