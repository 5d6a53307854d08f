"""The HTTP API, from the OpenAPI document that the program itself serves at `/openapi.json`."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from app.main import create_app
from app.settings import Settings
from docs._generate.schema import Schema, cell, fields, takes

Document = dict[str, Any]
_FOLDER = "reference/http"


def document() -> Document:
    """OpenAPI of the API role; nothing is connected to."""
    secret = SecretStr("only-to-describe-the-api")
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder), worker_token=secret, secret_key=secret))
        found: Document = app.openapi()
        app.state.platform.close()
    return found


def pages() -> dict[str, str]:
    """A first page, one for each tag, and one with the shapes of requests and replies."""
    found = document()
    operations = [
        (tag, method, path, operation)
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
        for tag in operation.get("tags", ["operations"])[:1]
    ]
    usual = _usual([one for _, _, _, one in operations])
    made = {f"{_FOLDER}/index.md": _first(found, operations, usual), f"{_FOLDER}/shapes.md": _shapes(found)}
    for tag in found["tags"]:
        inside = [_operation(method, path, one, usual) for name, method, path, one in operations if name == tag["name"]]
        made[f"{_FOLDER}/{tag['name']}.md"] = "\n\n".join([f"# {tag['name']}", tag["description"], *inside])
    return made


def _usual(operations: list[Document]) -> dict[str, str]:
    """Status -> description of the errors that most routes answer alike: told once, not at every route."""
    told = Counter(
        (status, one["description"])
        for operation in operations
        for status, one in operation.get("responses", {}).items()
        if status >= "400"
    )
    return {status: words for (status, words), count in sorted(told.items()) if count > len(operations) / 4}


def _first(found: Document, operations: list[tuple[str, str, str, Document]], usual: dict[str, str]) -> str:
    parts = ["# HTTP API", found["info"]["description"], "The document itself is at `/openapi.json` of every server, "
             "and a page to try it at `/docs`."]  # fmt: skip
    for tag in found["tags"]:
        rows = [
            f"| `{method.upper()}` | [`{path}`]({tag['name']}.md#{_anchor(method, path)}) | {_summary(one)} |"
            for name, method, path, one in operations
            if name == tag["name"]
        ]
        if rows:
            parts += [f"## {tag['name']}", tag["description"], "\n".join(["| | | |", "|---|---|---|", *rows])]
    rows = [f"| {status} | {cell(words)} |" for status, words in usual.items()]
    errors = (
        "What any route may answer; at a route only what differs is listed. "
        "Each is an [ErrorReply](shapes.md#shape-errorreply)."
    )
    parts += ["## Errors", errors, "\n".join(["| status | meaning and codes |", "|---|---|", *rows])]
    return "\n\n".join(parts)


def _summary(operation: Document) -> str:
    words = str(operation.get("description", operation.get("summary", "")))
    return cell(words.split("\n\n")[0])


def _anchor(method: str, path: str) -> str:
    return f"{method}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '').replace('.', '-')}"


def _operation(method: str, path: str, operation: Document, usual: dict[str, str]) -> str:
    parts = [f"## {method.upper()} {path} {{ #{_anchor(method, path)} }}", operation.get("description", "")]
    parameters = [one for one in operation.get("parameters", []) if "$ref" not in one]
    if parameters:
        rows = [
            f"| `{one['name']}` | {one['in']} | {takes(one.get('schema', {}), _link)} "
            f"| {'yes' if one.get('required') else ''} | {cell(one.get('description', ''))} |"
            for one in parameters
        ]
        parts.append("\n".join(["| parameter | in | takes | required | meaning |", "|---|---|---|---|---|", *rows]))
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content.get("schema", {})
        parts += [f"**Body** (`{kind}`): {takes(schema, _link)}", fields(schema, _link)]
    rows = [
        f"| {status} | {_reply(one)} |"
        for status, one in operation.get("responses", {}).items()
        if usual.get(status) != one["description"]
    ]
    parts.append("\n".join(["| status | reply |", "|---|---|", *rows]))
    return "\n\n".join(part for part in parts if part)


def _reply(response: Document) -> str:
    schemas = [content.get("schema") for content in response.get("content", {}).values()]
    shapes = [takes(schema, _link) for schema in schemas if schema]
    return cell(": ".join([response.get("description", ""), *dict.fromkeys(shapes)]))


def _link(name: str) -> str:
    return f"[{name}](shapes.md#{_shape_anchor(name)})"


def _shape_anchor(name: str) -> str:
    return f"shape-{name.lower()}"


def _shapes(found: Document) -> str:
    parts = ["# Shapes", "What requests and replies are made of."]
    for name, schema in sorted(found["components"]["schemas"].items()):
        parts += [f"## {name} {{ #{_shape_anchor(name)} }}", _described(schema)]
    return "\n\n".join(parts)


def _described(schema: Schema) -> str:
    def here(name: str) -> str:
        return f"[{name}](#{_shape_anchor(name)})"

    words = schema.get("description", "")
    table = fields(schema, here)
    return "\n\n".join(part for part in (words, table or takes(schema, here)) if part)
