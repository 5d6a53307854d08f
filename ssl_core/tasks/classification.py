"""One label of a fixed set for each sample. Imports without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

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


class Classification(Task):
    """A linear layer on the standardised vector of a sample, or its nearest labelled samples.

    `knn` freezes the encoder and lets the nearest labelled samples vote. `linear_probe` freezes the encoder and solves
    the layer, without a training loop: multinomial logistic regression. `full` starts from that solution and then
    trains everything: first the probe, then fine-tuning, distorts pretrained features less (Kumar et al. 2022). `lora`
    starts there too and trains low-rank adapters on the encoder's layers instead of its weights (Hu et al. 2021,
    https://arxiv.org/abs/2106.09685).
    """

    name: Literal["classification"] = "classification"
    mode: Literal["full", "lora", "linear_probe", "knn"] = Field(
        default="full", description="`linear_probe` and `knn` keep the encoder as it is, `lora` adapts it"
    )
    neighbours: int = Field(default=20, ge=1, le=1000, description="knn: nearest labelled samples that vote")
    rank: Rank = 8
    alpha: Alpha = 16.0
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="full, lora: share of the target spread evenly")
    head_dropout: float = Field(default=0.0, ge=0, lt=1, description="full, lora: dropout before the linear layer")
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="`balanced`: a class counts by the inverse of its number of samples"
    )
    self_training: bool = Field(
        default=False,
        description="linear_probe: learn from the job's `pool` too, by the layer's own answers; kept where held-out "
        "labels are told better for it. For pools whose classes have about the shares that the labels have",
    )
    penalty: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="L2 penalty of the probe on standardised features, scikit-learn's 1 / C; "
        "null = the best of 1 to 3000 by cross-validation on the labels, which also calibrates the probabilities",
    )

    modalities: ClassVar[tuple[str, ...]] = with_views("plain")
    views: ClassVar[tuple[str, ...]] = ("light",)
    paper: ClassVar[str] = "LP-FT, Kumar et al. 2022, https://arxiv.org/abs/2202.10054"
    best_metric: ClassVar[str] = "accuracy"

    @model_validator(mode="after")
    def _solved(self) -> Classification:
        if self.self_training and self.mode != "linear_probe":
            raise ValueError("self_training is of the mode linear_probe")
        return self

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """On a CPU one wide layer for text: in minutes, a large vocabulary learns more about topics than depth does."""
        from ssl_core.backbones import BACKBONES

        if modality.name == "text" and queue == "cpu":
            return BACKBONES["text-shallow"]
        return super().backbone(modality, queue)

    def build(self, encoder: Encoder, classes: list[str]) -> Nets:
        """With a classifier over `classes`; a probe's encoder takes no gradient and stays in evaluation mode.

        Of pairs the picture is classified: its tower alone is trained.
        """
        from ssl_core.answer_heads import class_nets

        return class_nets(encoder, len(classes), self.mode, self.neighbours, self.head_dropout)

    def low_rank(self) -> LowRank | None:
        """Of mode `lora`."""
        return LowRank(self.rank, self.alpha) if self.mode == "lora" else None

    def begin(self, nets: Nets, batches: Iterable[Batch]) -> bool:
        """Standardise the features, solve the linear layer; True for a probe, which needs no more.

        A fresh conv net is left alone: batch normalisation without averages has no features worth solving on.
        """
        from ssl_core.heads import FinetunedNets, classifier_of, vectors_and_labels
        from ssl_core.logistic import Choice, choose, class_weights, solve

        if self.mode == "knn":
            return self._remember(nets, *vectors_and_labels(nets.encoder, batches))
        head = classifier_of(nets)
        vectors, labels = vectors_and_labels(nets.encoder, batches)
        if self.class_weights == "balanced":
            head.class_weights.copy_(class_weights(labels, head.linear.out_features))
        if isinstance(nets, FinetunedNets):
            if not nets.has_averages():
                return False
            nets.keep_averages.fill_(True)
        head.standardise(vectors)
        features = head.standard(vectors)
        given = None if self.penalty is None else Choice(self.penalty, 1.0)
        penalty, scale = given or choose(features, labels, head.class_weights)
        weight, bias = solve(features, labels, head.class_weights, penalty)
        head.assign(scale * weight, scale * bias)
        return self.mode == "linear_probe"

    def reads_pool(self) -> bool:
        """With `self_training`."""
        return self.self_training

    def refine(self, nets: Nets, batches: Iterable[Batch], pool: Iterable[Batch]) -> str:
        """Self-training: see `ssl_core.self_training`. Features are standardised by the pool."""
        from ssl_core.heads import classifier_of, vectors_and_labels, vectors_of
        from ssl_core.logistic import Choice, choose
        from ssl_core.self_training import learn, told

        head, unlabelled = classifier_of(nets), vectors_of(nets.encoder, pool)
        vectors, labels = vectors_and_labels(nets.encoder, batches)
        head.standardise(unlabelled)
        features = head.standard(vectors)
        given = None if self.penalty is None else Choice(self.penalty, 1.0)
        first = given or choose(features, labels, head.class_weights)
        found = learn(features, labels, head.class_weights, head.standard(unlabelled), first)
        head.assign(found.weight, found.bias)
        return told(found, len(unlabelled))

    def _remember(self, nets: Nets, vectors: Tensor, labels: Tensor) -> bool:
        import torch.nn.functional as F

        from ssl_core.answer_heads import neighbours_of
        from ssl_core.logistic import class_weights

        head = neighbours_of(nets)
        classes = len(head.weights)
        head.remember(vectors, F.one_hot(labels, classes))
        if self.class_weights == "balanced":
            head.weights.copy_(class_weights(labels, classes))
        return True

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of (B,) labels; also the training `accuracy`."""
        from ssl_core.heads import classifier_of
        from ssl_core.losses import class_loss

        if batch.labels is None:
            raise ValueError("classification needs labels")
        head = classifier_of(nets)
        logits = head(nets.encoder(batch.views[0]))
        loss = class_loss(logits, batch.labels, head.class_weights, self.label_smoothing)
        return {"loss": loss, "accuracy": (logits.detach().argmax(1) == batch.labels).float().mean()}

    def predict(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """`probabilities` (B, classes)."""
        from ssl_core.heads import classifier_of

        if self.mode == "knn":
            return {"probabilities": self.head(nets).answers(nets.encoder(batch.views[0]))}
        logits = classifier_of(nets)(nets.encoder(batch.views[0]))
        return {"probabilities": logits.float().softmax(1)}

    def head(self, nets: Nets) -> Head:
        """Of the vector: the classifier's logits, or the neighbours' shares."""
        from ssl_core.answer_heads import Head, Told, folded, neighbours_of
        from ssl_core.heads import classifier_of

        if self.mode == "knn":
            return Head(Told(neighbours_of(nets), lambda made: made / made.sum(1, keepdim=True)), "probabilities")
        layer = classifier_of(nets)
        return Head(layer, "logits", "single_label_classification", linear=folded(layer))

    def metrics(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float]:
        """`accuracy`, `macro_f1` and `calibration_error` (15 bins) of a split; `average_precision`, the mean over the
        classes that occur, one against the rest, 0 where there is but one class."""
        import math

        from ssl_core.evaluation.ranking import average_precision
        from ssl_core.evaluation.scores import accuracy, calibration_error, macro_f1

        called, labels = self.calls(outputs, truth)
        precision = average_precision(outputs["probabilities"], labels)
        return {
            "accuracy": accuracy(called, labels),
            "macro_f1": macro_f1(called, labels),
            "average_precision": 0.0 if math.isnan(precision) else precision,
            "calibration_error": calibration_error(outputs["probabilities"], labels),
        }

    def calls(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The likeliest class of each sample, and its label."""
        return outputs["probabilities"].argmax(1), truth["label"]

    def likelihood(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
        """Of each sample's class."""
        return outputs["probabilities"].gather(1, truth["label"].unsqueeze(1)).squeeze(1)

    def answer(self, outputs: dict[str, Tensor], row: int, classes: list[str]) -> dict[str, Any]:
        """`{"label": the likeliest class, "probabilities": {class: probability}}`."""
        probabilities = outputs["probabilities"][row].tolist()
        best = max(range(len(classes)), key=probabilities.__getitem__)
        return {"label": classes[best], "probabilities": dict(zip(classes, probabilities, strict=True))}
