"""API shapes of `/v1/fine_tuning/jobs`: OpenAI's, where it has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.jobs.schemas import JobError
from app.pagination import Listing
from ssl_core.spec import DatasetId, Metadata

_HYPERPARAMETERS = {"n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": 1.0}
_JOB: dict[str, Any] = {
    "id": "job_01jd3w9aaa", "object": "fine_tuning.job", "created_at": 1767225600, "finished_at": None,
    "estimated_finish": 1767226200, "status": "running", "model": "mdl_01jd3w9qz2", "fine_tuned_model": None,
    "organization_id": "proj_01jd3w7aaa", "training_file": "ds_01jd3w8zzz", "validation_file": None,
    "result_files": [], "trained_tokens": None, "error": None, "hyperparameters": _HYPERPARAMETERS, "seed": 0,
    "method": {"type": "supervised", "supervised": {"hyperparameters": _HYPERPARAMETERS}},
    "metadata": {}, "integrations": [],
}  # fmt: skip
Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
MethodType = Literal["supervised", "pretrain"]
Model = Annotated[str, Field(min_length=1, max_length=64, examples=["mdl_01jd3w9qz2"])]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _chosen(value: Any) -> Any:
    return None if value == "auto" else value


_Whole = BeforeValidator(_chosen, json_schema_input_type=Literal["auto"] | int | None)
_Real = BeforeValidator(_chosen, json_schema_input_type=Literal["auto"] | float | None)


class SentHyperparameters(_Sent):
    """What OpenAI's clients may ask for; `auto` and what is left out is the recipe's."""

    n_epochs: Annotated[int | None, _Whole] = Field(
        default=None,
        ge=1,
        le=10_000,
        description="1 to 10,000, our `budget.epochs`; not for tasks that are solved without a training loop",
    )
    batch_size: Annotated[int | None, _Whole] = Field(default=None, ge=1, le=65_536, description="1 to 65,536")
    learning_rate_multiplier: Annotated[float | None, _Real] = Field(
        default=None, gt=0, le=1000, description="above 0, at most 1000: times the rate that the recipe would take"
    )


class SentSettings(_Sent):
    """The settings of one method."""

    hyperparameters: SentHyperparameters | None = None


class SentMethod(_Sent):
    """How to train: `supervised` is a job of type `finetune`, `pretrain` one of type `pretrain`."""

    type: MethodType
    supervised: SentSettings | None = None
    pretrain: SentSettings | None = None


class FineTuningCreate(BaseModel):
    """OpenAI's fields. Any other field of `FinetuneSpec` or `PretrainSpec` may stand beside them."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    model: Model = Field(
        default="auto",
        description="id of the model to start from; or, from scratch, a name of `GET /v1/backbones` or `auto`",
    )
    training_file: DatasetId
    validation_file: DatasetId | None = None
    method: SentMethod = SentMethod(type="supervised")
    hyperparameters: SentHyperparameters | None = Field(default=None, description="the older place for the method's")
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    suffix: str | None = Field(default=None, min_length=1, max_length=64, description="goes into the model's name")
    metadata: Metadata | None = Field(default=None, max_length=16)
    integrations: list[Any] | None = Field(default=None, max_length=0, description="there are none: leave it out")


class Hyperparameters(BaseModel):
    """With which numbers it trains; null where the job says it in other terms, such as a budget of steps."""

    n_epochs: int | float | None
    batch_size: int | None
    learning_rate_multiplier: float | None = Field(description="1: the recipe's rate; null: the rate itself was given")


class Settings(BaseModel):
    """The settings of one method."""

    hyperparameters: Hyperparameters


class Method(BaseModel):
    """How it trains."""

    type: MethodType
    supervised: Settings | None = None
    pretrain: Settings | None = None


class FineTuningJob(BaseModel):
    """A job of type `finetune` or `pretrain` in OpenAI's words. `GET /v1/jobs/{id}` says more of the same job."""

    model_config = ConfigDict(json_schema_extra={"examples": [_JOB]})

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None = Field(description="unix seconds, while it runs and its pace is known")
    status: Status = Field(description="a job that is about to pause or to be cancelled is still `running`")
    model: str = Field(description="the model it started from, or the name of its backbone")
    fine_tuned_model: str | None = Field(description="once it has succeeded, the model it made")
    organization_id: str = Field(description="the project")
    training_file: str
    validation_file: str | None
    result_files: list[str] = Field(description="once it has succeeded, a file with its curves: `series,step,value`")
    trained_tokens: int | None = Field(
        description="once it has ended, of text and proteins: steps times tokens in a batch as the data's mean tells it"
    )
    error: JobError | None
    hyperparameters: Hyperparameters
    seed: int
    method: Method
    metadata: dict[str, str]
    integrations: list[Any] = []


class FineTuningJobList(Listing[FineTuningJob]):
    """A page of jobs."""


class FineTuningEvent(BaseModel):
    """A line of the job's diary in OpenAI's words."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"id": "evt_01jd3w9bbb", "object": "fine_tuning.job.event", "created_at": 1767225602, "level": "info",
         "message": "The job is running.", "type": "message", "data": {"code": "running", "to": "running"}}
    ]})  # fmt: skip

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message"] = "message"
    data: dict[str, Any] = Field(description="what the event knows, and its stable `code`")


class FineTuningEventList(Listing[FineTuningEvent]):
    """A page of events."""


class CheckpointMetrics(BaseModel):
    """What was measured last before the checkpoint; null where nothing was."""

    step: int
    train_loss: float | None
    valid_loss: float | None


class FineTuningCheckpoint(BaseModel):
    """A checkpoint in OpenAI's words."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"id": "ckpt_01jd3w9ccc", "object": "fine_tuning.job.checkpoint", "created_at": 1767225660,
         "fine_tuning_job_id": "job_01jd3w9aaa", "fine_tuned_model_checkpoint": "ckpt_01jd3w9ccc", "step_number": 320,
         "metrics": {"step": 320, "train_loss": 2.31, "valid_loss": None}}
    ]})  # fmt: skip

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str = Field(
        description="the checkpoint itself: the job resumes from it, and no model is served from it"
    )
    step_number: int
    metrics: CheckpointMetrics


class FineTuningCheckpointList(Listing[FineTuningCheckpoint]):
    """A page of checkpoints."""
