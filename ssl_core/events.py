"""What a run tells the world, one JSON line each in `events.jsonl` (docs/contracts.md §2).

The engine appends; whoever supervises it tails. `seq` counts from 1 without gaps inside one attempt.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from ssl_core.values import Value

MAX_LINE_BYTES = 64 * 1024
Stage = Literal[
    "preparing", "training", "evaluating", "exporting", "ingesting", "importing", "predicting", "embedding", "indexing",
    "validating", "finalizing",
]  # fmt: skip
Step = Annotated[int, Field(ge=0, lt=2**40)]
SeriesName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_./@-]+$")]
# JSON has no NaN: a series point that is not finite travels as its name, and stays visible (B34).
Number = float | Literal["nan", "inf", "-inf"]


class _Event(Value):
    seq: int = Field(ge=1)
    time: float = Field(description="unix seconds on the engine's clock; for display only")


class StageEvent(_Event):
    """The run entered a stage."""

    type: Literal["stage"] = "stage"
    stage: Stage


class ProgressEvent(_Event):
    """How far the run is; at most about one a second."""

    type: Literal["progress"] = "progress"
    stage: Stage
    step: Step
    total_steps: Step | None = None
    """None while a `minutes` budget still measures its pace."""
    examples_per_second: float | None = None
    eta_seconds: float | None = None


class MetricsEvent(_Event):
    """One point for each named series at a step."""

    type: Literal["metrics"] = "metrics"
    step: Step
    values: dict[SeriesName, Number] = Field(max_length=200)


class MessageEvent(_Event):
    """A sentence for the user: what happened, why, what to change."""

    type: Literal["message"] = "message"
    level: Literal["info", "warning", "error"]
    code: str = Field(max_length=64)
    message: str = Field(max_length=4000)
    step: Step | None = None
    line: Step | None = None
    """Of a file of requests, counted from 1."""
    param: str | None = Field(default=None, max_length=200)


class SampleEvent(_Event):
    """A picture or text worth looking at; `path` is relative to the run directory."""

    type: Literal["sample"] = "sample"
    step: Step
    name: str = Field(max_length=200)
    path: str = Field(max_length=400)
    media_type: Literal["image/png", "text/plain", "application/json"]
    caption: str = Field(default="", max_length=1000)


class CheckpointEvent(_Event):
    """A checkpoint is durable at `path` (relative to the run directory), its manifest inside."""

    type: Literal["checkpoint"] = "checkpoint"
    step: Step
    path: str = Field(max_length=400)
    metrics: dict[SeriesName, Number] = Field(default_factory=dict, max_length=50)


Event = Annotated[
    StageEvent | ProgressEvent | MetricsEvent | MessageEvent | SampleEvent | CheckpointEvent,
    Field(discriminator="type"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
