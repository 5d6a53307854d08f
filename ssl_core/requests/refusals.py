"""Validation errors in our words: which field, what was wrong, what is allowed. Imports without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssl_core.errors import SpecError

# The validator's error types, by what a caller's program wants to know of them.
_CODES = {
    "missing": "missing_field",
    "missing_argument": "missing_field",
    "union_tag_not_found": "missing_field",
    "extra_forbidden": "unknown_field",
    "unexpected_keyword_argument": "unknown_field",
    "finite_number": "not_finite",
    "literal_error": "invalid_value",
    "enum": "invalid_value",
    "union_tag_invalid": "invalid_value",
    "string_pattern_mismatch": "invalid_format",
    "json_invalid": "malformed_json",
    **dict.fromkeys(("greater_than", "greater_than_equal", "less_than", "less_than_equal"), "out_of_range"),
    **dict.fromkeys(("too_long", "too_short", "string_too_long", "string_too_short"), "out_of_range"),
    **dict.fromkeys(("multiple_of", "int_parsing_size"), "out_of_range"),
}
_SHOWN = 80  # characters of a wrong value worth repeating
_MAX_PARAM = 200


def refusal(errors: Sequence[dict[str, Any]], body: Any) -> SpecError:
    """The first of the validator's errors; the others are counted in the message."""
    error = errors[0]
    source, *path = error["loc"]
    kind = str(error["type"])
    param = ".".join(_named(path, body, error)) if source == "body" else ".".join(str(part) for part in path)
    code = _code(kind)
    if source == "query" and param == "limit":
        code = "invalid_limit"
    if kind == "union_tag_not_found" or (kind == "union_tag_invalid" and not param):
        discriminator = str(error["ctx"]["discriminator"]).strip("'")
        param = f"{param}.{discriminator}" if param else discriminator
    message = _message(error, f"`{param}`" if param else "The body", kind)
    more = len(errors) - 1
    if more:
        message += f" ({more} more {'field is' if more == 1 else 'fields are'} wrong.)"
    return SpecError(code, message, param[:_MAX_PARAM] or None)


def _code(kind: str) -> str:
    if kind in _CODES:
        return _CODES[kind]
    return "type_error" if kind.endswith(("_type", "_parsing", "_from_float")) else "invalid_value"


def _named(path: Sequence[str | int], body: Any, error: dict[str, Any]) -> list[str]:
    """The path as the user wrote it: tags and branches of unions are the validator's own, and not in the body.

    A tag may be called like a field (`stage`): then the reading counts that ends at the value the error is about.
    """
    missing = error["type"] == "missing"

    def rank(reading: _Reading) -> tuple[bool, int]:
        named, end = reading
        return end == error.get("input"), len(named)

    named, end = max(_readings(list(path[:-1] if missing else path), body), key=rank)
    absent = missing and not (isinstance(end, list) and isinstance(path[-1], str))
    return [*named, str(path[-1])] if absent and path else named


_Reading = tuple[list[str], Any]  # the parts of the path that are the user's, and the value they lead to


def _readings(path: list[str | int], here: Any) -> list[_Reading]:
    """Each part is either a step into the body or the validator's own; at most 2^depth readings, one as a rule."""
    if not path:
        return [([], here)]
    part, rest = path[0], path[1:]
    skipped = _readings(rest, here)
    if isinstance(here, dict) and part in here:
        inside = here[str(part)]
    elif isinstance(here, list) and isinstance(part, int) and part < len(here):
        inside = here[part]
    else:
        return skipped
    return [([str(part), *named], end) for named, end in _readings(rest, inside)] + skipped


def _message(error: dict[str, Any], name: str, kind: str) -> str:
    context = error.get("ctx", {})
    given = _shown(error.get("input"))
    match kind:
        case "missing":
            return f"{name} is required."
        case "union_tag_not_found":
            return f"{name} is required: it says which kind this is."
        case "extra_forbidden":
            return f"{name} is not a field of this request."
        case "model_type" | "model_attributes_type" | "dict_type" | "dataclass_type":
            return f"{name} must be an object, {{…}}; given was {given}."
        case "union_tag_invalid":
            return f"{name}: {context['tag']!r} is not known; allowed are {context['expected_tags']}."
        case "literal_error" | "enum":
            return f"{name}: {given} is not allowed; use {context['expected']}."
        case "finite_number":
            return f"{name} must be a finite number; NaN and Infinity are not allowed."
        case "string_pattern_mismatch":
            return f"{name} must match the pattern {context['pattern']}."
        case "value_error":
            return f"{name}: {str(error['msg']).removeprefix('Value error, ')}"
        case _:
            said = str(error["msg"])
            return f"{name}: {said[:1].lower()}{said[1:]}; given was {given}."


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
