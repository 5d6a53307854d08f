"""What the specs of several jobs are made of. Imports without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssl_core.values import Value

Metadata = dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]]
DatasetId = Annotated[str, Field(pattern=r"^ds_[A-Za-z0-9]{1,40}$", examples=["ds_01jd3w8m6k"])]
ModelId = Annotated[str, Field(pattern=r"^mdl_[A-Za-z0-9]{1,40}$", examples=["mdl_01jd3w9qz2"])]

AllowLeakage = Annotated[
    bool,
    Field(
        description="go on where rows to be scored are among those learned from, exactly or nearly: a warning event "
        "instead of the error `leakage`"
    ),
]


class Budget(Value):
    """How long to train: exactly one of these. `minutes` fits the schedule to the time by measured throughput."""

    steps: int | None = Field(default=None, ge=1, le=10_000_000)
    epochs: float | None = Field(default=None, gt=0, le=10_000)
    tokens: int | None = Field(default=None, ge=1, le=10**13)
    examples: int | None = Field(default=None, ge=1, le=10**12)
    minutes: float | None = Field(default=None, gt=0, le=60 * 24 * 30)

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        given = [
            name
            for name in ("steps", "epochs", "tokens", "examples", "minutes")
            if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of steps, epochs, tokens, examples, minutes; got {given or 'none'}"
            )
        return self


class OptimizerSpec(Value):
    """AdamW (Loshchilov and Hutter 2019) or SGD with momentum, with a warm-up and a decay."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float | None = Field(default=None, gt=0, le=10, description="peak; None = the recipe's")
    encoder_learning_rate_scale: float = Field(
        default=1.0, ge=0, le=1, description="fine-tuning: the encoder's share of the rate"
    )
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's first beta, SGD's momentum")
    beta2: float = Field(default=0.98, ge=0, lt=1)
    warmup_fraction: float = Field(default=0.06, ge=0, le=0.5)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip_norm: float = Field(default=1.0, gt=0, le=1000)


class ProbeSpec(Value):
    """Score the encoder now and then on a small labelled dataset with a kNN and a linear probe."""

    dataset: DatasetId
    every_steps: int | None = Field(default=None, ge=1, description="None = ten times in the run")


class Resources(Value):
    """Where it runs."""

    queue: Literal["cpu", "gpu"] = "cpu"
    processes: int = Field(default=1, ge=1, le=64)
    priority: int = Field(default=0, ge=-100, le=100, description="within the project: higher is started first")
