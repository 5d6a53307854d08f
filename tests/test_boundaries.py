"""The house rules, each one a test: who may import whom, and how large a thing may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("app", "worker", "ssl_core", "groundwork")
SERVICES = {
    "fastapi",
    "starlette",
    "uvicorn",
    "sqlalchemy",
    "alembic",
    "celery",
    "kombu",
    "redis",
    "httpx",
    "httpx2",
    "requests",
    "psycopg",
    "obstore",
}
TORCH_FREE = (
    "ssl_core.backbones",
    "ssl_core.spec",
    "ssl_core.spec_fields",
    "ssl_core.evaluation_spec",
    "ssl_core.events",
    "ssl_core.errors",
    "ssl_core.estimates",
    "ssl_core.recipes",
    "ssl_core.sampling",
    "ssl_core.objectives",
    "ssl_core.tasks",
    "ssl_core.modalities",
    "ssl_core.targets",
    "ssl_core.tracing",
    "ssl_core.redaction",
    "ssl_core.requests",
    "ssl_core.hangups",
)
MAX_FILE, MAX_FUNCTION, MAX_NESTING, MAX_ARGUMENTS, MAX_INHERITANCE = 400, 60, 3, 6, 2
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCES:
        yield module_name(path), ast.parse(path.read_text())


def type_checking_only(tree: ast.Module) -> set[ast.AST]:
    """Nodes under `if TYPE_CHECKING:`, which never run."""
    blocks = (n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test))
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


def imports(tree: ast.Module, top_level_only: bool = False) -> set[str]:
    skip = type_checking_only(tree)
    if top_level_only:
        functions = (n for n in ast.walk(tree) if isinstance(n, Function))
        skip |= {inner for function in functions for inner in ast.walk(function)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in skip:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_the_engine_imports_no_web_database_or_queue_library() -> None:
    broken = {name: roots(imports(tree)) & SERVICES for name, tree in trees() if name.startswith("ssl_core")}
    assert not {name: bad for name, bad in broken.items() if bad}


def test_the_engine_imports_nothing_of_the_platform() -> None:
    assert not [
        name
        for name, tree in trees()
        if name.startswith("ssl_core") and roots(imports(tree)) & {"app", "worker", "groundwork"}
    ]


def test_worker_and_app_do_not_import_each_other() -> None:
    assert not [name for name, tree in trees() if name.startswith("worker") and "app" in roots(imports(tree))]
    assert not [name for name, tree in trees() if name.startswith("app") and "worker" in roots(imports(tree))]


@pytest.mark.parametrize("module", [*TORCH_FREE, "app.main", "worker.main", "worker.supervisor"])
def test_it_imports_without_torch(module: str) -> None:
    code = f"import {module}, sys; assert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_client_imports_no_server_code() -> None:
    heavy = "('fastapi', 'sqlalchemy', 'celery', 'torch', 'numpy', 'app', 'worker', 'ssl_core')"
    check = f"bad = [m for m in {heavy} if m in sys.modules]; assert not bad, bad"
    code = f"import groundwork.client, groundwork.cli, sys; {check}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_supervisor_never_sees_the_database() -> None:
    assert not [
        name
        for name, tree in trees()
        if name.startswith("worker") and roots(imports(tree)) & {"sqlalchemy", "psycopg", "alembic"}
    ]


def test_app_imports_only_the_torch_free_part_of_the_engine() -> None:
    allowed = {name.split(".")[1] for name in TORCH_FREE} | {"values", "context"}
    used = {
        (name, other)
        for name, tree in trees()
        if name.startswith("app")
        for other in imports(tree)
        if other.startswith("ssl_core.")
    }
    assert not [(name, other) for name, other in used if other.split(".")[1] not in allowed]


def test_only_the_queue_module_knows_celery() -> None:
    users = [
        name
        for name, tree in trees()
        if name.startswith("app") and roots(imports(tree)) & {"celery", "kombu"}
    ]
    assert users == ["app.queue"]


def test_only_the_storage_module_knows_where_bytes_live() -> None:
    assert [name for name, tree in trees() if "obstore" in roots(imports(tree))] == ["app.storage"]


def test_only_the_distributed_module_knows_ranks() -> None:
    users = {
        name for name, tree in trees() for other in imports(tree) if other.startswith("torch.distributed")
    }
    assert users <= {"ssl_core.distributed"}


def test_a_domain_uses_anothers_service_never_its_tables() -> None:
    def crosses(name: str, other: str) -> bool:
        if name == "app.schema":  # migrations need every table at once
            return False
        return other.startswith("app.") and ".tables" in other and other.split(".")[1] != name.split(".")[1]

    assert not [
        (name, other)
        for name, tree in trees()
        if name.startswith("app.")
        for other in imports(tree)
        if crosses(name, other)
    ]


def test_there_is_no_import_cycle() -> None:
    known = {module_name(path) for path in SOURCES}
    graph = {
        name: {other for other in imports(tree, top_level_only=True) if other in known and other != name}
        for name, tree in trees()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_stays_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE


def depth(node: ast.AST, level: int = 0) -> int:
    """Deepest nesting of blocks inside a function; `elif` and a nested function's own body do not add."""
    blocks = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
    deepest = level
    for field, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        is_elif = (
            isinstance(node, ast.If)
            and field == "orelse"
            and len(children) == 1
            and isinstance(children[0], ast.If)
        )
        for child in children:
            if isinstance(child, ast.AST) and not isinstance(child, Function):
                deeper = isinstance(child, blocks) and not is_elif
                deepest = max(deepest, depth(child, level + deeper))
    return deepest


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_stay_short_flat_and_typed(path: Path) -> None:
    broken = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, Function):
            continue
        arguments = [a for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in {"self", "cls"}]
        lines = (node.end_lineno or 0) - node.lineno + 1
        if (
            lines > MAX_FUNCTION
            or depth(node) > MAX_NESTING
            or len(arguments) > MAX_ARGUMENTS
            or node.returns is None
        ):
            found = f"{lines} lines, nesting {depth(node)}, {len(arguments)} positional arguments"
            broken.append(f"{node.name}: {found}, returns {node.returns}")
    assert not broken


def own_bases() -> dict[str, set[str]]:
    """Full class name -> full names of its bases, for classes of the project."""
    found: dict[str, set[str]] = {}
    for name, tree in trees():
        local = {n.name: f"{name}.{n.name}" for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
        froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        known = {alias.asname or alias.name: f"{n.module}.{alias.name}" for n in froms for alias in n.names} | local
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[local[node.name]] = {known.get(b.id, b.id) for b in node.bases if isinstance(b, ast.Name)}
    return found


def test_own_inheritance_is_shallow() -> None:
    bases = own_bases()

    def height(name: str) -> int:
        return 1 + max((height(base) for base in bases[name] if base in bases), default=-1)

    # Errors are trees by design; everything else is at most a leaf of a leaf of a library's class or of `Value`.
    heights = {name: height(name) for name in bases if not name.endswith("Error") and ".errors." not in name}
    assert not {name: found for name, found in heights.items() if found > MAX_INHERITANCE}


def test_no_name_hides_what_it_holds() -> None:
    hiding = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert not [path for path in SOURCES if set(path.stem.split("_")) & hiding]


def test_no_pickle_reaches_users_bytes() -> None:
    barred = (
        "torch.load(",
        "pickle.load",
        "joblib.load",
        "allow_pickle=True",
        "yaml.load(",
        "trust_remote_code=True",
        "torch.jit.load",
    )
    assert not [(str(path), word) for path in SOURCES for word in barred if word in path.read_text()]
