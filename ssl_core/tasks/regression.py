"""A number for each sample. Imports without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ssl_core.errors import SpecError
from ssl_core.low_rank import Alpha, LowRank, Rank
from ssl_core.modalities import with_views
from ssl_core.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.answer_heads import Head
    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.nets import Nets


class Regression(Task):
    """A linear layer on the standardised vector of a sample, trained by squared error on the standardised number.

    `knn` freezes the encoder and tells the mean of the nearest samples. `linear_probe` freezes the encoder and solves
    the layer: ridge regression. `full` starts from that solution and then trains everything, `lora`
    low-rank adapters, as `classification` does.
    """

    name: Literal["regression"] = "regression"
    mode: Literal["full", "lora", "linear_probe", "knn"] = Field(
        default="full", description="`linear_probe` and `knn` keep the encoder as it is, `lora` adapts it"
    )
    neighbours: int = Field(default=20, ge=1, le=1000, description="knn: nearest labelled samples, whose mean is told")
    places: int = Field(
        default=0,
        ge=0,
        le=2048,
        description="text, protein: the layer reads the vectors of this many first tokens side by side instead of "
        "their mean. For rows that correspond place by place, as variants of one protein do: its length",
    )
    rank: Rank = 8
    alpha: Alpha = 16.0
    head_dropout: float = Field(default=0.0, ge=0, lt=1, description="full, lora: dropout before the linear layer")
    penalty: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="L2 penalty of the probe on standardised features and numbers, scikit-learn's alpha; "
        "null = the best of 0.1 to 300,000 by cross-validation",
    )

    modalities: ClassVar[tuple[str, ...]] = with_views("plain")
    views: ClassVar[tuple[str, ...]] = ("plain",)
    target: ClassVar[str] = "number"
    least_classes: ClassVar[int] = 0
    paper: ClassVar[str] = "LP-FT, Kumar et al. 2022, https://arxiv.org/abs/2202.10054"
    best_metric: ClassVar[str] = "spearman"

    def check(self, backbone: EncoderSpec) -> None:
        """Places are of tokens."""
        if self.places and backbone.family != "transformer":
            text = f"places are of text and proteins; {backbone.name} is a {backbone.family}"
            raise SpecError("backbone_mismatch", text, "task.places")
        super().check(backbone)

    def build(self, encoder: Encoder, classes: list[str]) -> Nets:
        """With a regressor; a probe's encoder takes no gradient. Of pairs the picture alone is read."""
        from ssl_core.answer_heads import Neighbours
        from ssl_core.encoders.dual import Dual
        from ssl_core.heads import FinetunedNets, FrozenNets
        from ssl_core.ridge import Regressor

        if self.mode == "knn":
            return FrozenNets(encoder, neighbours=Neighbours(self.neighbours, self._width(encoder), 1))
        head = Regressor(self._width(encoder), self.head_dropout)
        if self.mode == "linear_probe":
            return FrozenNets(encoder, regressor=head)
        if isinstance(encoder, Dual):
            encoder.pictures_only()
        return FinetunedNets(encoder, regressor=head)

    def low_rank(self) -> LowRank | None:
        """Of mode `lora`."""
        return LowRank(self.rank, self.alpha) if self.mode == "lora" else None

    def begin(self, nets: Nets, batches: Iterable[Batch]) -> bool:
        """Standardise features and numbers, solve the linear layer; True for a probe, which needs no more.

        Of a fresh conv net the numbers only: batch normalisation without averages has no features worth solving on.
        """
        from ssl_core.answer_heads import neighbours_of
        from ssl_core.heads import FinetunedNets, vectors_and_targets
        from ssl_core.ridge import regressor_of

        vectors, numbers = vectors_and_targets(nets.encoder, batches, "number", self.places)
        if self.mode == "knn":
            neighbours_of(nets).remember(vectors, numbers[:, None])
            return True
        head = regressor_of(nets)
        head.centre_on(numbers)
        if isinstance(nets, FinetunedNets):
            if not nets.has_averages():
                return False
            nets.keep_averages.fill_(True)
        head.fit(vectors, numbers, self.penalty)
        return self.mode == "linear_probe"

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error of the standardised numbers."""
        import torch.nn.functional as F

        from ssl_core.places import vectors_by_place
        from ssl_core.ridge import regressor_of

        head = regressor_of(nets)
        predicted = head(vectors_by_place(nets.encoder, batch.views[0], self.places))
        return {"loss": F.mse_loss(predicted, head.standard(batch.targets["number"]))}

    def predict(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """`number` (B,), as the dataset has them."""
        from ssl_core.places import vectors_by_place

        vectors = vectors_by_place(nets.encoder, batch.views[0], self.places)
        return {"number": self._answers(nets).answers(vectors).squeeze(1)}

    def head(self, nets: Nets) -> Head | None:
        """Of the vector; None where it reads the places."""
        return None if self.places else self._answers(nets)

    def _width(self, encoder: Encoder) -> int:
        return encoder.embed_dim * max(1, self.places)

    def _answers(self, nets: Nets) -> Head:
        """(B, 1) numbers as the dataset has them, of what the layer reads."""
        from ssl_core.answer_heads import Head, Told, neighbours_of
        from ssl_core.ridge import regressor_of

        if self.mode == "knn":
            return Head(neighbours_of(nets), "number")
        head = regressor_of(nets)
        own = Told(head, lambda made: head.own(made.float())[:, None])
        return Head(own, "number", "regression", linear=head.folded())

    def metrics(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float]:
        """`mse`, and `spearman`: the correlation of ranks, 0 where either side is all equal."""
        from ssl_core.evaluation.ranking import spearman

        predicted, numbers = outputs["number"].double(), truth["number"].double()
        return {"mse": float((predicted - numbers).square().mean()), "spearman": spearman(predicted, numbers)}

    def answer(self, outputs: dict[str, Tensor], row: int, classes: list[str]) -> dict[str, Any]:
        """`{"number": the predicted one}`."""
        return {"number": float(outputs["number"][row])}
