"""The base of every supervised task: the same verbs as an objective, plus predict and metrics. No torch import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ssl_core.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ssl_core.answer_heads import Head
    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.evaluation.samples import Show
    from ssl_core.export import BaseModel
    from ssl_core.low_rank import LowRank
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets
    from ssl_core.spec import DatasetFacts, TargetFacts


class Task(Value):
    """A frozen value, one file in this folder, found by the same scan as objectives.

    The trainer cannot tell it from an objective: one loop, one checkpoint, one resume.
    """

    name: str
    modalities: ClassVar[tuple[str, ...]]
    views: ClassVar[tuple[str, ...]]
    """The training view; evaluation and prediction use the modality's `plain` view."""
    paper: ClassVar[str] = ""
    target: ClassVar[str] = "label"
    """What it learns from: `label`, the rows' classes, or a name of `ssl_core.targets`."""
    least_classes: ClassVar[int] = 2
    """That a dataset must have; 0 where the target has no classes."""
    usual_batch: ClassVar[int] = 32
    """Samples in a step where the user names no number."""
    rate: ClassVar[float] = 1.0
    """The recipe's learning rate from scratch, as a share of what suits the encoder."""
    pretrained_rate: ClassVar[float] = 0.1
    """The learning rate of a pretrained encoder with its head, as a share of that of a fresh one."""
    adapter_rate: ClassVar[float] = 1.0
    """The same where low-rank adapters are trained instead of the encoder."""
    best_metric: ClassVar[str]
    """The held-out metric that early stopping watches; higher is better."""

    def labels(self, dataset: DatasetFacts) -> TargetFacts:
        """What a dataset has of this task's target; no rows where it has none."""
        from ssl_core.spec import TargetFacts

        if self.target != "label":
            return dataset.targets.get(self.target, TargetFacts(rows=0))
        return TargetFacts(rows=dataset.labelled, classes=dataset.classes, class_counts=dataset.class_counts)

    def training_views(self, modality: Modality) -> tuple[str, ...]:
        """`views`, each replaced by `plain` where the modality does not have it."""
        return tuple(name if name in modality.views else "plain" for name in self.views)

    def preparation(self, suited: Modality) -> Modality:
        """The recipe's settings of the modality of a run from scratch, given those that suit the dataset."""
        return suited

    def reading(self, modality: Modality) -> Modality:
        """A pretrained model's settings of the modality, as this task reads with them; here: as they are."""
        return modality

    def check(self, backbone: EncoderSpec) -> None:
        """What the task asks of the encoder beyond its family, at submission.

        Raises:
            SpecError: `backbone_mismatch`, `rank_too_large`; `param` is the field to change.
        """
        from ssl_core.low_rank import check

        if (low := self.low_rank()) is not None:
            check(low, backbone)

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """The recipe's encoder of a run from scratch where the user names none."""
        return modality.default_backbone("base" if queue == "gpu" else "tiny")

    def build(self, encoder: Encoder, classes: list[str]) -> Nets:
        """The encoder with this task's head over `classes` (empty where the task has none)."""
        raise NotImplementedError

    def decoder_layers(self, backbone: EncoderSpec) -> int:
        """Layers of a decoder of the encoder's shape that it trains beside it, for the estimate of memory."""
        return 0

    def settled(self, base: BaseModel | None) -> Task:
        """With what the pretrained model decides; here: as it is."""
        return self

    def adopt(self, nets: Nets, base: BaseModel) -> None:
        """Take over more of a pretrained model than its encoder, whose weights are in `nets` already."""

    def low_rank(self) -> LowRank | None:
        """The adapters that are trained instead of the encoder, and merged into it at the end; here: None, no such."""
        return None

    def begin(self, nets: Nets, batches: Iterable[Batch]) -> bool:
        """Called once before the first step of a run that does not resume; a pure function of weights and batches.

        Args:
            nets: on the training device.
            batches: plain views of the whole training split, with what it learns from; to be walked at most once.

        Returns:
            True where the task is solved and no step is left to train: evaluate and export.
        """
        return False

    def reads_pool(self) -> bool:
        """Whether it also learns from unlabelled rows, those of the job's `pool`."""
        return False

    def refine(self, nets: Nets, batches: Iterable[Batch], pool: Iterable[Batch]) -> str:
        """Where it `reads_pool`: called once, after `begin`, arguments as there.

        Args:
            pool: plain views of unlabelled rows; to be walked at most once.

        Returns:
            What came of it, in words.
        """
        raise NotImplementedError

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """`{"loss": scalar, ...}` as for an objective."""
        raise NotImplementedError

    def after_step(self, nets: Nets, progress: float) -> None:
        """As for an objective."""

    def served(self, modality: Modality, items: list[Any], folder: Path) -> dict[str, NDArray[Any]]:
        """What `predict` must know of items beside their views, first dimension theirs; it arrives as `Batch.targets`.

        Args:
            modality: the model's.
            items: as `Modality.collate` takes them.
            folder: of the model: it holds the tokenizer.
        """
        return {}

    def predict(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Raw outputs for a batch of plain views, first dimension B; e.g. `{"probabilities": (B, classes)}`."""
        raise NotImplementedError

    def glance(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """As much of `predict` as `best_metric` needs, for the scores while a run goes on; here: all of it."""
        return self.predict(nets, batch)

    def spelled(self, outputs: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
        """The outputs of a batch with whatever takes the tokenizer of `folder` to tell; here: as they are."""
        return outputs

    def metrics(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float]:
        """Scores of a whole split.

        Args:
            outputs: of `predict`, all batches below each other; where these differ in size, filled up behind with NaN
                (floating), -1 (whole numbers) or False.
            truth: `label` (N,) int64 class indices, or what the task's target reads, in the same order.
        """
        raise NotImplementedError

    def calls(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """(n,) the called and the true class of everything judged, for a confusion matrix; None where there is none.

        Arguments as for `metrics`."""
        return None

    def by_class(
        self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor], classes: list[str]
    ) -> list[dict[str, Any]]:
        """A row for each class in an evaluation, `class` first, where `calls` do not tell it; here: none.

        Arguments as for `metrics`."""
        return []

    def likelihood(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor | None:
        """(N,) probability of each sample's own label, the mean where it has several; None where there is none.

        Arguments as for `metrics`. What is least likely is worth a look: it is hard, or labelled wrongly."""
        return None

    def marked(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `answer` needs of labelled samples beside `outputs`; of served ones `served` has given it."""
        return {}

    def samples(self, nets: Nets, batch: Batch, classes: list[str], show: Show) -> None:
        """Show what was found beside what is true: a few labelled samples, plain views, nets in evaluation mode."""

    def head(self, nets: Nets) -> Head | None:
        """Its answers as a function of the encoder's vector or tokens, for exports; None where they are more."""
        return None

    def whole(self, nets: Nets) -> nn.Module | None:
        """Its answers as a function of what the encoder reads, for ONNX files of tasks without a `head`; its attribute
        `outputs` names them. None where the answers are no function of tensors."""
        return None

    def answer(self, outputs: dict[str, Tensor], row: int, classes: list[str]) -> dict[str, Any]:
        """What the predictions endpoint says of one sample."""
        raise NotImplementedError
