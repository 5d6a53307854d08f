"""JobSpec: the request body, the stored row, what the engine gets and the checkpoint's birth certificate.

One frozen union on `type`. Fields left at None are filled by `ssl_core.recipes.resolve`; no None that the trainer
needs survives into a stored spec. Imports without torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, field_validator

from ssl_core.backbones import EncoderSpec, named_backbone
from ssl_core.errors import SpecError
from ssl_core.evaluation_spec import (
    BaselineSpec,
    BatchSpec,
    EmbedSpec,
    EvaluateSpec,
    LabelEfficiencySpec,
    PredictSpec,
    ReportSpec,
)
from ssl_core.modalities import AnyModality
from ssl_core.objectives import AnyObjective
from ssl_core.spec_fields import (
    AllowLeakage,
    Budget,
    DatasetId,
    Metadata,
    ModelId,
    OptimizerSpec,
    ProbeSpec,
    Resources,
)
from ssl_core.tasks import AnyTask
from ssl_core.values import Value

__all__ = [
    "JOB_SPEC", "AnySpec", "BaselineSpec", "BatchSpec", "Budget", "DatasetFacts", "DatasetId", "EmbedSpec",
    "EvaluateSpec", "ExportSpec", "FinetuneSpec", "HubModel", "ImportSpec", "IngestSpec", "JobSpec",
    "LabelEfficiencySpec", "Metadata", "ModelFacts", "ModelId", "OptimizerSpec", "PredictSpec", "PretrainSpec",
    "ProbeSpec", "ReportSpec", "Resources", "RunOrder", "TrainPlan", "TrainSpec", "Training", "UserJobSpec",
]  # fmt: skip


class Training(Value):
    """Settings that every trained job shares; the recipe fills what is None."""

    budget: Budget | None = None
    batch_size: int | None = Field(default=None, ge=1, le=65_536)
    optimizer: OptimizerSpec = OptimizerSpec()
    seed: int = Field(default=0, ge=0, lt=2**31)
    precision: Literal["fp32", "bf16"] | None = None
    compile: bool | None = Field(
        default=None,
        description="train through torch.compile: about a minute of compiling for quicker steps, and other random "
        "numbers than without; None = on GPUs only",
    )
    validation_fraction: float | None = Field(default=None, ge=0, le=0.5)
    checkpoint_every_steps: int | None = Field(
        default=None, ge=1, description="None = about once a minute of training"
    )
    resources: Resources = Resources()
    metadata: Metadata = Field(default_factory=dict, max_length=16)
    suffix: str | None = Field(
        default=None, min_length=1, max_length=64, description="goes into the model's name"
    )


class PretrainSpec(Training):
    """Self-supervised pretraining on an unlabelled dataset."""

    type: Literal["pretrain"] = "pretrain"
    dataset: DatasetId
    objective: AnyObjective
    modality: AnyModality | None = Field(
        default=None, description="None = the dataset's, with the recipe's settings"
    )
    backbone: EncoderSpec | None = Field(
        default=None, description="a name of `GET /v1/backbones` or a whole shape"
    )
    model: ModelId | None = Field(
        default=None, description="start from this model's weights (continued pretraining)"
    )
    probe: ProbeSpec | None = None
    on_collapse: Literal["fail", "warn"] = Field(
        default="fail", description="what follows where the representation collapses or the loss diverges"
    )

    @field_validator("backbone", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named_backbone(value)


class FinetuneSpec(Training):
    """Training a task on a labelled dataset, from a pretrained model or from scratch."""

    type: Literal["finetune"] = "finetune"
    dataset: DatasetId
    task: AnyTask
    model: ModelId | None = Field(default=None, description="the pretrained model; None = from scratch")
    initialization: Literal["pretrained", "random"] = Field(
        default="pretrained", description="`random` keeps the model's shape and tokenizer with fresh weights"
    )
    modality: AnyModality | None = None
    backbone: EncoderSpec | None = Field(default=None, description="from scratch only; else the model's own")
    validation_dataset: DatasetId | None = Field(
        default=None,
        description="None = hold out `validation_fraction`. What is held out also chooses the best weights, so its "
        "`final/` scores are a little optimistic; keep a test set of your own",
    )
    test_dataset: DatasetId | None = Field(
        default=None, description="scored once, at the end and with the best weights: the `test/` metrics"
    )
    pool: DatasetId | None = Field(
        default=None,
        description="what the model was pretrained on, which `test_dataset` is compared with and which self-training "
        "reads; None = as its lineage says, while that dataset is still here",
    )
    allow_leakage: AllowLeakage = False
    labels: int | None = Field(
        default=None, ge=1, le=10**9,
        description="train on this many labelled rows of each class (without classes: rows in all), drawn by the seed; "
        "those of a smaller number are among those of a larger one. None = all",
    )  # fmt: skip
    keep_model: bool = Field(default=True, description="false: only the metrics are wanted, and no model is made")
    patience: int | None = Field(
        default=None, ge=1, le=1000, description="evaluations without a better score before stopping"
    )

    @field_validator("backbone", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named_backbone(value)


class IngestSpec(Value):
    """Internal: turn an upload into a canonical dataset. Made by the dataset endpoints, never by a user."""

    type: Literal["ingest"] = "ingest"
    dataset: DatasetId
    modality: str | None = Field(default=None, max_length=32, description="None = told from the bytes")
    filename: str = Field(max_length=255)
    columns: dict[str, str] = Field(
        default_factory=dict, description="our column name -> theirs: text, label"
    )
    resources: Resources = Resources()


class HubModel(Value):
    """A repository of a public hub, for an operator who allows it."""

    repository: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    revision: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")


class ImportSpec(Value):
    """Internal: turn a public model folder into a model. Made by `POST /v1/models`, never by a user."""

    type: Literal["import"] = "import"
    upload: str | None = Field(default=None, pattern=r"^imp_[a-z0-9]{1,40}$", description="the uploaded zip")
    bytes: int = Field(default=0, ge=0, description="of the upload")
    filename: str = Field(default="", max_length=255)
    hub: HubModel | None = None
    least_share: float = Field(default=1.0, ge=0.5, le=1, description="of the tensors that must match")
    name: str | None = Field(default=None, min_length=1, max_length=200)
    metadata: Metadata = Field(default_factory=dict, max_length=16)
    resources: Resources = Resources()


class ExportSpec(Value):
    """Write a model in a public format; `GET /v1/models/{id}/download?format=` then gives it."""

    type: Literal["export"] = "export"
    model: ModelId
    format: Literal["hf", "onnx"] = Field(description="a transformers folder, or ONNX")
    metadata: Metadata = Field(default_factory=dict, max_length=16)
    resources: Resources = Resources()


AnySpec = (
    PretrainSpec
    | FinetuneSpec
    | EvaluateSpec
    | PredictSpec
    | EmbedSpec
    | BatchSpec
    | LabelEfficiencySpec
    | BaselineSpec
    | ReportSpec
    | IngestSpec
    | ImportSpec
    | ExportSpec
)
JobSpec = Annotated[AnySpec, Field(discriminator="type")]
TrainSpec = Annotated[PretrainSpec | FinetuneSpec, Field(discriminator="type")]
UserJobSpec = Annotated[
    PretrainSpec | FinetuneSpec | EvaluateSpec | PredictSpec | EmbedSpec | LabelEfficiencySpec | ExportSpec,
    Field(discriminator="type"),
]
JOB_SPEC: TypeAdapter[AnySpec] = TypeAdapter(JobSpec)


class TrainPlan(Value):
    """A resolved spec's training numbers, none of them optional: what `ssl_core.trainer` reads."""

    budget: Budget
    batch_size: int
    optimizer: OptimizerSpec
    learning_rate: float
    seed: int
    precision: Literal["fp32", "bf16"]
    compile: bool
    validation_fraction: float
    checkpoint_every_steps: int | None
    patience: int | None

    @classmethod
    def of(cls, spec: PretrainSpec | FinetuneSpec) -> TrainPlan:
        """Raises SpecError `unresolved` where a recipe left a None."""
        budget, size, rate = spec.budget, spec.batch_size, spec.optimizer.learning_rate
        if (
            budget is None
            or size is None
            or rate is None
            or spec.precision is None
            or spec.validation_fraction is None
        ):
            raise SpecError(
                "unresolved", "the spec still has fields that a recipe must fill; call recipes.resolve first"
            )
        return cls(
            budget=budget,
            batch_size=size,
            optimizer=spec.optimizer,
            learning_rate=rate,
            seed=spec.seed,
            precision=spec.precision,
            compile=bool(spec.compile),
            validation_fraction=spec.validation_fraction,
            checkpoint_every_steps=spec.checkpoint_every_steps,
            patience=getattr(spec, "patience", None),
        )


class TargetFacts(Value):
    """What is known of one target (`ssl_core.targets`) of a dataset."""

    rows: int = Field(description="rows that have it")
    classes: list[str] = Field(default_factory=list)
    class_counts: dict[str, int] = Field(default_factory=dict)
    numbers: dict[str, float] = Field(default_factory=dict, description="what else its kind measures")


class DatasetFacts(Value):
    """What a recipe and validation know of a dataset (from its ingest result)."""

    id: str
    modality: str
    rows: int
    labelled: int = 0
    classes: list[str] = Field(default_factory=list)
    class_counts: dict[str, int] = Field(default_factory=dict)
    characters: int = Field(default=0, description="text: characters in all rows")
    width: int = Field(default=0, description="image: median width in pixels")
    height: int = Field(default=0, description="image: median height in pixels")
    channels: int = Field(default=0, description="image: 1 where every picture is grey, else 3")
    numbers: dict[str, int] = Field(default_factory=dict, description="what else a modality's recipe asks for")
    targets: dict[str, TargetFacts] = Field(default_factory=dict, description="what rows have beside a class label")


class ModelFacts(Value):
    """What a recipe and validation know of a base model."""

    id: str
    modality: AnyModality
    backbone: EncoderSpec
    objective: AnyObjective | None = None


class RunOrder(Value):
    """`run.json`: all an engine run needs, in local paths (docs/contracts.md §2)."""

    spec: JobSpec
    datasets: dict[str, str] = Field(
        default_factory=dict, description="dataset id -> canonical folder (ingest: the uploaded file)"
    )
    model: str | None = Field(default=None, description="folder of the base model")
    checkpoints: list[str] = Field(
        default_factory=list, description="candidate checkpoint folders, newest first"
    )
    cache: str = Field(description="folder for prepared shards, shared between runs")
    threads: int | None = Field(
        default=None, ge=1, description="torch intra-op threads; None = torch's choice"
    )
