"""What `POST /v1/jobs` takes, kind by kind; tasks, modalities and backbones with them."""

from __future__ import annotations

import inspect
from typing import Any, get_args

from pydantic import BaseModel

from docs._generate.schema import fields
from ssl_core.backbones import BACKBONES, FAMILIES, EncoderSpec
from ssl_core.modalities import MODALITIES
from ssl_core.objectives import OBJECTIVES
from ssl_core.spec import UserJobSpec
from ssl_core.tasks import TASKS

_UNIONS = {
    **{kind.__name__: f"[an objective](../objectives/{name}.md)" for name, kind in OBJECTIVES.items()},
    **{kind.__name__: "[a task](tasks.md)" for kind in TASKS.values()},
    **{kind.__name__: "[a modality](modalities.md)" for kind in MODALITIES.values()},
    "EncoderSpec": "[a backbone](backbones.md)",
}


_READS = "How rows become what an encoder reads; `modality` of a job. Left out, the recipe fills it."


def pages() -> dict[str, str]:
    """Job specs, tasks, modalities, backbones."""
    return {
        "reference/job-specs.md": _specs(),
        "reference/tasks.md": _registry("Tasks", "What a model is fine-tuned to; `task` of a job.", TASKS),
        "reference/modalities.md": _registry("Modalities", _READS, MODALITIES),
        "reference/backbones.md": _backbones(),
    }


def _specs() -> str:
    kinds = get_args(get_args(UserJobSpec)[0])
    parts = [
        "# Job specs",
        "`POST /v1/jobs` takes one of these, told apart by `type`. Fields left out are filled by the recipe of the "
        "data, the objective and the queue; the reply's `resolved_spec` has every number, and sent again it "
        "repeats the run. Unknown fields are refused.",
    ]
    shared: dict[str, Any] = {}
    for kind in kinds:
        schema = kind.model_json_schema(ref_template="{model}")
        shared |= {name: one for name, one in schema.get("$defs", {}).items() if name not in _UNIONS}
        name = schema["properties"]["type"]["const"]
        parts += [f"## {name}", inspect.getdoc(kind) or "", fields(schema, _link, leave_out=("type",))]
    for name, schema in sorted(shared.items()):
        parts += [f"## {name}", schema.get("description", ""), fields(schema, _link)]
    return "\n\n".join(parts)


def _link(name: str) -> str:
    if name in {kind.__name__ for kind in OBJECTIVES.values()}:
        return "[an objective](../objectives/index.md)"
    return _UNIONS.get(name, f"[{name}](#{name.lower()})")


def _registry(title: str, words: str, kinds: dict[str, Any]) -> str:
    parts = [f"# {title}", words]
    for name, kind in kinds.items():
        model: type[BaseModel] = kind
        parts += [f"## {name}", inspect.getdoc(model) or "", fields(model.model_json_schema(), leave_out=("name",))]
    return "\n\n".join(parts)


def _backbones() -> str:
    rows = [
        f"| `{row.name}` | {row.family} | {', '.join(FAMILIES[row.family][0])} | {_size(row)} |"
        for row in BACKBONES.values()
    ]
    table = ["| name | family | reads | shape |", "|---|---|---|---|", *rows]
    return "\n\n".join(
        [
            "# Backbones",
            "`backbone` of a job is a name, or a whole shape: the fields of a row with some of them changed.",
            "\n".join(table),
            "## Fields of a shape",
            inspect.getdoc(EncoderSpec) or "",
            fields(EncoderSpec.model_json_schema()),
        ]
    )


def _size(row: EncoderSpec) -> str:
    if row.image is not None and row.text is not None:
        return f"pictures: {_size(row.image)}; texts: {_size(row.text)}"
    return f"width {row.width}, depth {row.depth}"
