"""The pages whose blocks are executed: all of them, written or made from the program."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from docs._generate.blocks import Block, blocks

ROOT = Path(__file__).parents[2]
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def blocks_of(page: str) -> tuple[Block, ...]:
    """Of a page, by its path in the repository."""
    return tuple(blocks((ROOT / page).read_text(encoding="utf-8"), page))


def names() -> list[str]:
    """Pages that have blocks."""
    found = [path.relative_to(ROOT).as_posix() for path in WRITTEN]
    return [name for name in found if blocks_of(name)]


def runnable(name: str) -> bool:
    """Whether a page has a block that needs a server or an interpreter."""
    return any(block.language in ("sh", "python") and block.reason is None for block in blocks_of(name))
