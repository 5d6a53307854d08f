"""Reading `input`, with its faults as replies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.errors import Unprocessable
from ssl_core.errors import DataError
from ssl_core.requests import items
from ssl_core.requests.items import Item, RowRef, is_single

__all__ = ["Item", "RowRef", "as_sent", "is_single", "read_input", "read_item"]


def read_input(given: Any) -> list[Item]:
    """The items of `input`, checked as far as can be told without the model.

    Raises:
        Unprocessable: `invalid_input`, `empty_input`, `input_too_long`, `too_many_inputs`; `param` is `input` or
            `input[3]`.
    """
    with _replied():
        return items.read_input(given)


def read_item(given: Any, param: str) -> Item:
    """One item. Raises Unprocessable at `param`, as `read_input`."""
    with _replied():
        return items.read_item(given, param)


@contextmanager
def _replied() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise Unprocessable(error.code, error.message, error.param) from None


@contextmanager
def as_sent(given: Any) -> Iterator[None]:
    """The inference role knows items by number only: an error about a single input says `input`, as it was sent."""
    try:
        yield
    except Unprocessable as error:
        if error.param == "input[0]" and is_single(given):
            error.param = "input"
        raise
