"""The base of every typed value that a request, a stored row and a run share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """Frozen, strict, finite, and closed: an unknown field is an error, `true` is not 1, NaN is not a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
