"""Specs of the jobs that measure: evaluation, label efficiency, and the parts it is made of. Imports without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ssl_core.requests.lines import Endpoint
from ssl_core.spec_fields import AllowLeakage, Budget, DatasetId, Metadata, ModelId, Resources
from ssl_core.tasks import AnyTask
from ssl_core.values import Value

Arm = Literal["full", "lora", "probe", "knn", "self_training", "scratch", "classical", "public"]
ARM_WORDS: dict[str, str] = {
    "full": "pretrained, fine-tuned",
    "lora": "pretrained, low-rank adapters",
    "probe": "pretrained, frozen, linear layer",
    "knn": "pretrained, frozen, nearest neighbours",
    "self_training": "pretrained, frozen, linear layer that learns from the pool too",
    "scratch": "the same network from scratch",
    "classical": "classical model, no neural network",
    "public": "public checkpoint, fine-tuned",
}


BASELINES: dict[tuple[str, str], str] = {
    ("text", "classification"): "texts",
    ("image", "classification"): "images",
    ("audio", "classification"): "sounds",
    ("protein", "tagging"): "residues",
}
"""Which classical models there are: (modality, task) -> module of `ssl_core.evaluation.baselines`."""


class EvaluateSpec(Value):
    """Score a fine-tuned model on a labelled dataset: metrics, a table of classes, the worst rows.

    A pretrained model without a task is scored by what it was pretrained for: a language model by its perplexity, an
    encoder of pairs by retrieval both ways.
    """

    type: Literal["evaluate"] = "evaluate"
    model: ModelId
    dataset: DatasetId
    worst_rows: int = Field(default=50, ge=0, le=1000, description="rows to list whose labels the model likes least")
    allow_leakage: AllowLeakage = False
    training_dataset: DatasetId | None = Field(
        default=None,
        description="what the model was fine-tuned on, which the rows are compared with; None = as its lineage says, "
        "while that dataset is still here. Models without a task are compared with nothing",
    )
    pool: DatasetId | None = Field(default=None, description="the same of what it was pretrained on")
    metadata: Metadata = Field(default_factory=dict, max_length=16)
    resources: Resources = Resources()


class PredictSpec(Value):
    """A fine-tuned model's answer for every row of a dataset, with labels or without: `predictions.jsonl`."""

    type: Literal["predict"] = "predict"
    model: ModelId
    dataset: DatasetId
    metadata: Metadata = Field(default_factory=dict, max_length=16)
    resources: Resources = Resources()


class EmbedSpec(Value):
    """A model's vector for every row of a dataset: `embeddings.parquet`, which `/datasets/{id}/search` looks into.

    A model of pictures with texts also takes a dataset of pictures alone, or of texts: its vectors of both lie in one
    space. Of a pair it embeds the picture.
    """

    type: Literal["embed"] = "embed"
    model: ModelId
    dataset: DatasetId
    pooling: Literal["mean", "cls", "max"] = Field(default="mean", description="as at the embeddings endpoint")
    normalize: bool = Field(default=False, description="give every vector length 1")
    index_from: int = Field(
        default=50_000, ge=1000, le=10**9, description="rows from which an approximate index is made for the search"
    )
    metadata: Metadata = Field(default_factory=dict, max_length=16)
    resources: Resources = Resources()


class BatchSpec(Value):
    """Internal: answer every request of an uploaded file. Made by `POST /v1/batches`."""

    type: Literal["batch"] = "batch"
    file: DatasetId
    endpoint: Endpoint
    model: ModelId | None = Field(description="that every line names; None: the first line names none that there is")
    metadata: Metadata = Field(default_factory=dict, max_length=16)
    resources: Resources = Resources()


class LabelEfficiencySpec(Value):
    """How many labels a pretrained model saves: several ways to learn, at several numbers of labels, on one test set.

    Every point is a job of its own: kept, so that a later report with one more number of labels trains only that.
    """

    type: Literal["label_efficiency"] = "label_efficiency"
    model: ModelId = Field(description="the pretrained model")
    dataset: DatasetId = Field(description="the labelled rows to draw from")
    test_dataset: DatasetId = Field(description="rows that every arm is scored on")
    pool: DatasetId | None = Field(
        default=None,
        description="unlabelled rows that the arms `classical` and `self_training` may read; None = what the model "
        "was pretrained on",
    )
    task: AnyTask = Field(default_factory=lambda: _classification())
    labels: list[Annotated[int, Field(ge=1, le=10**9)]] = Field(
        min_length=1, max_length=12, description="numbers of labelled rows of each class (without classes: in all)"
    )
    all_labels: bool = Field(default=False, description="a last point with every labelled row")
    seeds: int = Field(default=3, ge=1, le=20, description="draws of rows and starts of training for each point")
    arms: list[Arm] = Field(default=["full", "probe", "scratch", "classical"], min_length=1, max_length=8)
    public_model: ModelId | None = Field(default=None, description="arm `public`: an imported checkpoint")
    allow_leakage: AllowLeakage = False
    budget: Budget | None = Field(default=None, description="of each training; None = the recipe's")
    metadata: Metadata = Field(default_factory=dict, max_length=16)
    resources: Resources = Resources()

    @field_validator("labels", "arms")
    @classmethod
    def _once_each(cls, value: list[int] | list[str]) -> list[int] | list[str]:
        if len(set(value)) != len(value):
            raise ValueError("the same value stands there twice")
        return value

    @model_validator(mode="after")
    def _named(self) -> LabelEfficiencySpec:
        if ("public" in self.arms) != (self.public_model is not None):
            raise ValueError("arm `public` and public_model go together")
        return self


class BaselineSpec(Value):
    """Internal: the classical arm of a label-efficiency job, without a neural network."""

    type: Literal["baseline"] = "baseline"
    dataset: DatasetId
    test_dataset: DatasetId
    pool: DatasetId | None = None
    modality: str = Field(max_length=32)
    task: AnyTask
    labels: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    allow_leakage: AllowLeakage = False
    resources: Resources = Resources()


class ReportPoint(Value):
    """One finished part: an arm at a number of labels with one seed."""

    arm: Arm
    labels: int | None = Field(description="as asked for; None = all")
    rows: int = Field(ge=0, description="labelled rows that it learned from")
    seed: int
    score: float
    metrics: dict[str, float] = Field(default_factory=dict)
    minutes: float = Field(ge=0)
    job: str = Field(max_length=40)


class ReportSpec(Value):
    """Internal: draw the report of a label-efficiency job from its finished parts."""

    type: Literal["report"] = "report"
    title: str = Field(max_length=400)
    metric: str = Field(max_length=100)
    points: list[ReportPoint] = Field(min_length=1, max_length=2000)
    facts: dict[str, str] = Field(default_factory=dict, description="lines for the head of the report")
    resources: Resources = Resources()


def _classification() -> AnyTask:
    from ssl_core.tasks.classification import Classification

    return Classification()
