"""A job's spec from a file and flags, and where each of its fields was written, so that a refusal can point there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from groundwork.commands.failures import Failure

Json = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of JSON: `1e-3` is a number, `no` and `2026-01-01` are words."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  # as the parent declares it


for _tag, _pattern, _starts in (
    ("bool", r"true|false|True|False", "tTfF"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_starts))


@dataclass
class Draft:
    """A spec as it stands. `told` says where a field was written: `spec.yaml line 7`, `--steps`."""

    body: Json = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    def put(self, path: str, value: Any, by: str) -> None:
        """Set a field by its dotted name; what stood there is replaced. Raises Failure where it has no place."""
        *above, last = path.split(".")
        here = self.body
        for name in above:
            here = here.setdefault(name, {})
            if not isinstance(here, dict):
                raise Failure(f"{by}: `{name}` holds {here!r}, which has no fields", "take one of the two away")
        here[last] = value
        self.told[path] = by

    def name(self, path: str, value: str, by: str) -> None:
        """Set what is chosen by name (an objective, a task), and keep the settings that are for the same one."""
        known = self.body.get(path)
        same = isinstance(known, dict) and known.get("name") == value
        self.put(path, known if same else {"name": value}, by)

    def where(self, param: str | None) -> str | None:
        """Where the field that a refusal names was written, or the nearest around it."""
        path = re.sub(r"\[(\d+)\]", r".\1", param or "")
        while path:
            if path in self.told:
                return self.told[path]
            path = path.rpartition(".")[0]
        return None


def read(path: str) -> Draft:
    """The spec in a file of YAML or JSON, or on standard input (`-`). Raises Failure that names the line."""
    name = "standard input" if path == "-" else path
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror or error}", "check the path after -f") from error
    except UnicodeDecodeError as error:
        raise Failure(f"{path} is no UTF-8 text", "give a YAML or JSON file") from error
    try:
        return _json(text, name) if text.lstrip().startswith("{") else _yaml(text, name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise Failure(f"{name}{line}: {problem}", "correct the file") from error


def value(text: str) -> Any:
    """What stands behind `=`: a number, true, null, a list or object as YAML or JSON, else the words."""
    try:
        return _Loader(text).get_single_data()
    except yaml.YAMLError:
        return text


def sets(draft: Draft, given: Iterable[str]) -> None:
    """`a.b=c` for each `--set`. Raises Failure."""
    for each in given:
        path, equals, text = each.partition("=")
        if not equals or not re.fullmatch(r"\w+(\.\w+)*", path.strip()):
            raise Failure(f"--set {each!r} is no assignment", "write it like --set optimizer.learning_rate=1e-3")
        draft.put(path.strip(), value(text), f"--set {path.strip()}")


def dump(document: Json) -> str:
    """A spec as YAML, which `read` takes again."""
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def _json(text: str, name: str) -> Draft:
    try:
        document = _object(json.loads(text), name)
    except json.JSONDecodeError as error:
        if not name.endswith(".json"):
            return _yaml(text, name)  # which may begin with a brace as well
        words = f"{name} line {error.lineno}, column {error.colno}: {error.msg}"
        raise Failure(words, "correct the file") from error
    try:
        return Draft(document, _marks(text, name))
    except yaml.YAMLError:  # tabs between the tokens: JSON allows them and YAML does not
        return Draft(document)


def _yaml(text: str, name: str) -> Draft:
    told = _marks(text, name)
    return Draft(_object(_Loader(text).get_single_data(), name), told)


def _marks(text: str, name: str) -> dict[str, str]:
    node, told = _Loader(text).get_single_node(), dict[str, str]()
    if node is not None:
        _walk(node, "", name, told)
    return told


def _walk(node: yaml.Node, path: str, name: str, told: dict[str, str]) -> None:
    if path:
        told[path] = f"{name} line {node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        _walk_mapping(node, path, name, told)
    elif isinstance(node, yaml.SequenceNode):
        for place, each in enumerate(node.value):
            _walk(each, f"{path}.{place}", name, told)


def _walk_mapping(node: yaml.MappingNode, path: str, name: str, told: dict[str, str]) -> None:
    seen: set[str] = set()
    for key, inner in node.value:
        line = key.start_mark.line + 1
        if str(key.value) in seen:
            raise Failure(f"{name} line {line}: `{key.value}` stands there twice", "take one of the two away")
        seen.add(str(key.value))
        below = f"{path}.{key.value}".lstrip(".")
        _walk(inner, below, name, told)
        told[below] = f"{name} line {line}"


def _object(document: Any, name: str) -> Json:
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise Failure(f"{name} holds no spec", "write fields such as `type: pretrain`, one a line")
    return document
