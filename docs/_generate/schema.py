"""JSON Schema as tables of Markdown: a field, what it takes, its value when it is left out, what it means."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]
Link = Callable[[str], str]
"""Name of a definition -> its Markdown."""

_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_SIZES = {
    "minLength": ("at least", "characters"),
    "maxLength": ("at most", "characters"),
    "minItems": ("at least", "entries"),
    "maxItems": ("at most", "entries"),
    "maxProperties": ("at most", "entries"),
}


def named(name: str) -> str:
    """A definition that has no place to link to."""
    return f"`{name}`"


def fields(schema: Schema, link: Link = named, leave_out: tuple[str, ...] = ()) -> str:
    """The table of an object's properties; an empty string where it has none."""
    required = set(schema.get("required", []))
    rows = [
        f"| `{name}` | {takes(one, link)} | {_default(name, one, required)} | {cell(one.get('description', ''))} |"
        for name, one in schema.get("properties", {}).items()
        if name not in leave_out
    ]
    if not rows:
        return ""
    return "\n".join(["| field | takes | left out | meaning |", "|---|---|---|---|", *rows])


def takes(schema: Schema, link: Link = named) -> str:
    """Type and bounds in words, safe in a cell of a table."""
    return cell(_takes(schema, link))


def cell(text: str) -> str:
    """Text that stays in one cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _takes(schema: Schema, link: Link) -> str:
    if "$ref" in schema:
        return _reference(schema["$ref"], link)
    for many in ("anyOf", "oneOf", "allOf"):
        if many in schema:
            found = [_takes(one, link) for one in schema[many] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(found)) or "null"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return ", ".join([f"list of {_takes(schema.get('items', {}), link)}", *_limits(schema)])
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return ", ".join([f"object of {_takes(schema['additionalProperties'], link)}", *_limits(schema)])
    return ", ".join([str(kind), *_limits(schema)])


def _reference(target: str, link: Link) -> str:
    """A definition, or one property of a definition (`.../PretrainSpec/properties/batch_size`)."""
    whole, _, inner = target.partition("/properties/")
    name = link(whole.rpartition("/")[2])
    return f"`{inner}` of {name}" if inner else name


def _limits(schema: Schema) -> list[str]:
    found = [f"{sign} {schema[key]:,}" for key, sign in _BOUNDS.items() if key in schema]
    found += [f"{words} {schema[key]:,} {unit}" for key, (words, unit) in _SIZES.items() if key in schema]
    if "pattern" in schema:
        found.append(f"`{schema['pattern']}`")
    if "format" in schema:
        found.append(schema["format"])
    return found


def _default(name: str, schema: Schema, required: set[str]) -> str:
    if name in required:
        return "required"
    if schema.get("default") is None:
        return ""
    if isinstance(schema["default"], dict):
        return "its defaults" if schema["default"] else ""
    return cell(f"`{json.dumps(schema['default'], ensure_ascii=False)}`")
