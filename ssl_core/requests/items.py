"""Reading `input`: every accepted spelling becomes one list of items, and an error names the item at fault.

Imports without torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ssl_core.errors import DataError
from ssl_core.modalities import COLUMNS, MODALITIES
from ssl_core.modalities.base import Column
from ssl_core.requests.shapes import MAX_CHARACTERS, MAX_INPUTS, MAX_TOKENS

_DATA_URI = re.compile(r"data:([a-z0-9.+/-]+);base64,")
_VALUES = {name: f'"{name}": "data:{one.media[0]};base64,…"' if one.media else f'"{name}": …'
           for name, one in COLUMNS.items()}  # fmt: skip
_OBJECTS = ", ".join(f"{{{', '.join(_VALUES[name] for name in one.columns)}}}" for one in MODALITIES.values())
_SHAPES = f'a string, a list of token ids, {_OBJECTS} or {{"dataset": …, "row": …}}'


@dataclass(frozen=True)
class RowRef:
    """One row of a dataset, still to be read."""

    dataset: str
    row: int
    param: str


Item = dict[str, Any] | RowRef
"""What goes to the inference role (docs/contracts.md §6), or a row that has to be read first."""


def read_input(given: Any) -> list[Item]:
    """The items of `input`, checked as far as can be told without the model.

    Raises:
        DataError: `invalid_input`, `empty_input`, `input_too_long`, `too_many_inputs`; `param` is `input` or
            `input[3]`.
    """
    if is_single(given):
        return [read_item(given, "input")]
    if not given:
        raise DataError("empty_input", "`input` is an empty list.", "input")
    if len(given) > MAX_INPUTS:
        words = f"`input` holds {len(given)} items; {MAX_INPUTS} are allowed."
        raise DataError("too_many_inputs", words, "input")
    return [read_item(one, f"input[{number}]") for number, one in enumerate(given)]


def is_single(given: Any) -> bool:
    """Whether `input` is one item and not a list of them: a list of integers is one input of tokens."""
    return not isinstance(given, list) or (len(given) > 0 and all(type(one) is int for one in given))


def read_item(given: Any, param: str) -> Item:
    """One item, checked as far as can be told without the model. Raises DataError at `param`, as `read_input`."""
    if isinstance(given, str):
        return {"text": _text(given, param)}
    if isinstance(given, list):
        return {"tokens": _tokens(given, param)}
    if isinstance(given, dict):
        return _object(given, param)
    raise DataError("invalid_input", f"`{param}` must be {_SHAPES}.", param)


def _object(given: dict[str, Any], param: str) -> Item:
    match given:
        case {"dataset": str(dataset), "row": int(row), **rest} if not rest and type(row) is int and row >= 0:
            return RowRef(dataset, row, param)
    whole = any(given.keys() == one.columns.keys() for one in MODALITIES.values())
    if whole and all(isinstance(value, str) for value in given.values()):
        return {name: _content(COLUMNS[name], value, param) for name, value in given.items()}
    raise DataError("invalid_input", f"`{param}` must be {_SHAPES}.", param)


def _content(column: Column, value: str, param: str) -> str:
    return _file(value, column.media, param) if column.media else _text(value, param)


def _text(text: str, param: str) -> str:
    if not text.strip():
        raise DataError("empty_input", f"`{param}` is an empty text.", param)
    if len(text) > MAX_CHARACTERS:
        words = f"`{param}` has {len(text)} characters; {MAX_CHARACTERS} are allowed."
        raise DataError("input_too_long", words, param)
    return text


def _tokens(tokens: list[Any], param: str) -> list[int]:
    if not tokens:
        raise DataError("empty_input", f"`{param}` is an empty list.", param)
    if any(type(token) is not int or token < 0 for token in tokens):
        raise DataError("invalid_input", f"`{param}` must be a list of token ids, whole numbers from 0.", param)
    if len(tokens) > MAX_TOKENS:
        raise DataError("input_too_long", f"`{param}` has {len(tokens)} tokens; {MAX_TOKENS} are allowed.", param)
    return tokens


def _file(uri: str, media: tuple[str, ...], param: str) -> str:
    """The base64 part of a data URI; what it holds is for the inference role to say."""
    head = _DATA_URI.match(uri[:128])
    if head is None or head[1] not in media:
        words = f"must be a data URI, such as data:{media[0]};base64,…, of a file of type {', '.join(media)}"
        raise DataError("invalid_input", f"`{param}` {words}", param)
    if head.end() == len(uri):
        raise DataError("empty_input", f"`{param}` is an empty file.", param)
    return uri[head.end() :]
