"""JSON read strictly. Imports without torch.

The standard reader takes NaN, `1e400`, duplicate keys and integers no column can hold. Here each is refused, and named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ssl_core.errors import SpecError

MALFORMED = "malformed_json"
MAX_INTEGER = 2**63 - 1
_TOO_DEEP = "The body is nested too deeply."
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = {
    "not_finite": "is not a finite number; NaN, Infinity and numbers beyond 1.8e308 are not allowed.",
    "out_of_range": f"is out of range; integers go from {-MAX_INTEGER - 1} to {MAX_INTEGER}.",
    "duplicate_key": "is given twice in one object.",
    "invalid_character": "holds a NUL character or half a surrogate pair, which no text may hold.",
}


@dataclass(frozen=True)
class _Refused:
    """Stands in the parsed tree where a value was refused, so that its path can be told."""

    code: str
    key: str | None = None


def parse(raw: bytes) -> Any:
    """The value of a JSON text. Raises SpecError `malformed_json`, or one that names the field that cannot be taken."""
    refused: list[_Refused] = []

    def refuse(code: str, key: str | None = None) -> _Refused:
        refused.append(_Refused(code, key))
        return refused[-1]

    try:
        value = json.loads(raw.decode("utf-8"), **_hooks(refuse))
    except UnicodeDecodeError:
        raise SpecError(MALFORMED, "The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise SpecError(MALFORMED, f"The body is not valid JSON: {error.msg} at {where}.") from None
    except RecursionError:
        raise SpecError(MALFORMED, _TOO_DEEP) from None
    # Half a surrogate pair or a NUL can only come in as an escape; raw ones are not valid UTF-8 or JSON.
    if refused or b"\\u" in raw:
        try:
            _raise_at_path(value, [])
        except RecursionError:  # the reader, which is not Python, goes deeper than a function here can
            raise SpecError(MALFORMED, _TOO_DEEP) from None
    return value


def _hooks(refuse: Callable[..., _Refused]) -> dict[str, Any]:
    def integer(text: str) -> int | _Refused:
        value = int(text) if len(text) <= 20 else MAX_INTEGER + 1
        return value if -MAX_INTEGER - 1 <= value <= MAX_INTEGER else refuse("out_of_range")

    def number(text: str) -> float | _Refused:
        value = float(text)
        return value if abs(value) != float("inf") else refuse("not_finite")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(items)
        if len(value) != len(items):
            seen: set[str] = set()  # one pass: a stranger may send tens of thousands of names
            for name, _ in items:
                if name in seen:
                    value[name] = refuse("duplicate_key")
                    break
                seen.add(name)
        return value

    def constant(_text: str) -> _Refused:
        return refuse("not_finite")

    return {"parse_int": integer, "parse_float": number, "parse_constant": constant, "object_pairs_hook": pairs}


def _raise_at_path(value: Any, path: list[str]) -> None:
    if isinstance(value, _Refused):
        _refuse(value.code, path)
    elif isinstance(value, str) and ("\0" in value or _SURROGATE.search(value)):
        _refuse("invalid_character", path)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _raise_at_path(key, path)
            _raise_at_path(inner, [*path, key])
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _raise_at_path(inner, [*path, str(index)])


def _refuse(code: str, path: list[str]) -> None:
    param = ".".join(path) or None
    raise SpecError(code, f"{f'`{param}`' if param else 'A value in the body'} {_WORDS[code]}", param)
