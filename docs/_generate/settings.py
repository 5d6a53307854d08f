"""Every environment variable, from the classes that read them."""

from __future__ import annotations

from pydantic_settings import BaseSettings

from app.settings import Settings
from docs._generate.schema import cell, takes
from worker.inference_settings import InferenceSettings
from worker.settings import WorkerSettings

_ROLES: dict[str, type[BaseSettings]] = {"API": Settings, "Worker": WorkerSettings, "Inference": InferenceSettings}


def pages() -> dict[str, str]:
    """One page."""
    parts = [
        "# Settings",
        "Environment variables, read once when a process starts. `groundwork serve` needs none of them. What they are "
        "for is told in [Operations](../operations.md#settings). A wrong value is one line and an exit status.",
    ]
    for role, kind in _ROLES.items():
        parts += [f"## {role}", _table(kind)]
    return {"reference/settings.md": "\n\n".join(parts)}


def _table(kind: type[BaseSettings]) -> str:
    prefix = str(kind.model_config.get("env_prefix", ""))
    schema = kind.model_json_schema()
    rows = ["| variable | takes | left out | meaning |", "|---|---|---|---|"]
    for name, one in schema["properties"].items():
        given = "required" if name in schema.get("required", []) else _default(one.get("default"))
        variable = f"{prefix}{name}".upper()
        rows.append(f"| `{variable}` | {takes(one)} | {given} | {cell(one.get('description', ''))} |")
    return "\n".join(rows)


def _default(value: object) -> str:
    if value in (None, ""):
        return "none"
    if isinstance(value, list):
        return f"`{','.join(map(str, value))}`" if value else "none"
    return f"`{value:,}`" if isinstance(value, int) and not isinstance(value, bool) else f"`{value}`"
