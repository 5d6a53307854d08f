"""Validation errors as the envelope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.errors import Unprocessable
from ssl_core.requests import refusals


def refusal(errors: Sequence[dict[str, Any]], body: Any) -> Unprocessable:
    """The first of the validator's errors as the envelope; the others are counted in the message."""
    told = refusals.refusal(errors, body)
    return Unprocessable(told.code, told.message, told.param)
