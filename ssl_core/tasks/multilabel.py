"""Several labels of a fixed set for each sample, or none. Imports without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ssl_core.low_rank import Alpha, LowRank, Rank
from ssl_core.modalities import with_views
from ssl_core.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.answer_heads import Head
    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets

THRESHOLD = 0.5
"""From this probability on a label is given."""


class Multilabel(Task):
    """A linear layer on the standardised vector of a sample, with a yes or no for each class by itself.

    The modes are those of `classification`: `linear_probe` solves the layer, one logistic regression for each class, on
    a frozen encoder; `full` starts from that solution and trains everything, `lora` low-rank
    adapters instead. A label is given from a probability of 0.5 on: F1 is that of these labels, while average precision
    and AUROC ask for no threshold.
    """

    name: Literal["multilabel"] = "multilabel"
    mode: Literal["full", "lora", "linear_probe", "knn"] = Field(
        default="full", description="`linear_probe` and `knn` keep the encoder as it is, `lora` adapts it"
    )
    neighbours: int = Field(default=20, ge=1, le=1000, description="knn: nearest labelled samples that vote")
    rank: Rank = 8
    alpha: Alpha = 16.0
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="full, lora: share of each yes and no spread evenly"
    )
    head_dropout: float = Field(default=0.0, ge=0, lt=1, description="full, lora: dropout before the linear layer")
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="`balanced`: samples inside a class count together as much as those outside; finds more of rare "
        "classes, and its probabilities are too high for them",
    )
    penalty: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="L2 penalty of the probe on standardised features, scikit-learn's 1 / C; "
        "null = the best of 1 to 3000 by cross-validation",
    )

    modalities: ClassVar[tuple[str, ...]] = with_views("plain")
    views: ClassVar[tuple[str, ...]] = ("light",)
    target: ClassVar[str] = "labels"
    least_classes: ClassVar[int] = 1
    paper: ClassVar[str] = "LP-FT, Kumar et al. 2022, https://arxiv.org/abs/2202.10054"
    best_metric: ClassVar[str] = "mean_average_precision"

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """That of classification."""
        from ssl_core.tasks.classification import Classification

        return Classification().backbone(modality, queue)

    def build(self, encoder: Encoder, classes: list[str]) -> Nets:
        """With a classifier over `classes`; a probe's encoder takes no gradient. Of pairs the picture alone is read."""
        from ssl_core.answer_heads import class_nets

        return class_nets(encoder, len(classes), self.mode, self.neighbours, self.head_dropout)

    def low_rank(self) -> LowRank | None:
        """Of mode `lora`."""
        return LowRank(self.rank, self.alpha) if self.mode == "lora" else None

    def begin(self, nets: Nets, batches: Iterable[Batch]) -> bool:
        """Standardise the features, solve the linear layer; True for a probe, which needs no more.

        A fresh conv net is left alone: batch normalisation without averages has no features worth solving on.
        """
        from ssl_core.answer_heads import neighbours_of
        from ssl_core.heads import FinetunedNets, classifier_of, vectors_and_targets
        from ssl_core.multilabel import choose, positive_weights, solve

        vectors, truth = vectors_and_targets(nets.encoder, batches, "labels")
        if self.mode == "knn":
            neighbours_of(nets).remember(vectors, truth)
            return True
        head = classifier_of(nets)
        if self.class_weights == "balanced":
            head.class_weights.copy_(positive_weights(truth))
        if isinstance(nets, FinetunedNets):
            if not nets.has_averages():
                return False
            nets.keep_averages.fill_(True)
        head.standardise(vectors)
        features = head.standard(vectors)
        penalty = self.penalty or choose(features, truth, head.class_weights)
        head.assign(*solve(features, truth, head.class_weights, penalty))
        return self.mode == "linear_probe"

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Mean binary cross-entropy of (B, classes); also the training `accuracy` of single yeses and noes."""
        from ssl_core.heads import classifier_of
        from ssl_core.multilabel import each_class_loss

        head = classifier_of(nets)
        truth = batch.targets["labels"]
        logits = head(nets.encoder(batch.views[0]))
        loss = each_class_loss(logits, truth, head.class_weights, self.label_smoothing)
        return {"loss": loss, "accuracy": ((logits.detach() >= 0) == truth).float().mean()}

    def predict(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """`probabilities` (B, classes), each by itself."""
        from ssl_core.answer_heads import neighbours_of
        from ssl_core.heads import classifier_of

        if self.mode == "knn":
            return {"probabilities": neighbours_of(nets)(nets.encoder(batch.views[0]))}
        logits = classifier_of(nets)(nets.encoder(batch.views[0]))
        return {"probabilities": logits.float().sigmoid()}

    def head(self, nets: Nets) -> Head:
        """Of the vector: the classifier's logits, or the neighbours' shares."""
        from ssl_core.answer_heads import Head, folded, neighbours_of
        from ssl_core.heads import classifier_of

        if self.mode == "knn":
            return Head(neighbours_of(nets), "probabilities")
        layer = classifier_of(nets)
        return Head(layer, "logits", "multi_label_classification", linear=folded(layer))

    def metrics(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float]:
        """`macro_f1`, `micro_f1`, `mean_average_precision`, `macro_auroc`; the means are over the classes that have
        what they need (see `ssl_core.evaluation.label_scores`), 0 where none has."""
        import math

        from ssl_core.evaluation.label_scores import macro_f1, mean_over_classes, micro_f1
        from ssl_core.evaluation.ranking import binary_auroc, binary_average_precision

        probabilities, labels = outputs["probabilities"], truth["labels"]
        given = probabilities >= THRESHOLD
        scores = {
            "macro_f1": macro_f1(given, labels),
            "micro_f1": micro_f1(given, labels),
            "mean_average_precision": mean_over_classes(probabilities, labels, binary_average_precision),
            "macro_auroc": mean_over_classes(probabilities, labels, binary_auroc),
        }
        return {name: 0.0 if math.isnan(value) else value for name, value in scores.items()}

    def likelihood(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
        """Of the least likely yes or no of each sample: one wrong label shows, however many classes there are."""
        import torch

        probabilities, labels = outputs["probabilities"], truth["labels"]
        return torch.where(labels, probabilities, 1 - probabilities).min(1).values

    def answer(self, outputs: dict[str, Tensor], row: int, classes: list[str]) -> dict[str, Any]:
        """`{"labels": [those of a probability of at least 0.5, in the order of the classes], "probabilities": {…}}`."""
        probabilities = outputs["probabilities"][row].tolist()
        given = [name for name, value in zip(classes, probabilities, strict=True) if value >= THRESHOLD]
        return {"labels": given, "probabilities": dict(zip(classes, probabilities, strict=True))}
