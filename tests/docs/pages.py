"""The pages whose blocks are executed: all of them, written or made from the program."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from docs._generate.blocks import Block, blocks

ROOT = Path(__file__).parents[2]
_ELSEWHERE = re.compile(r"Every block of this page is run by\s+`(tests/[\w/]+\.py)`")
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def blocks_of(page: str) -> tuple[Block, ...]:
    """Of a page, by its path in the repository."""
    return tuple(blocks((ROOT / page).read_text(encoding="utf-8"), page))


def names() -> list[str]:
    """Pages that have blocks."""
    found = [path.relative_to(ROOT).as_posix() for path in WRITTEN]
    return [name for name in found if blocks_of(name)]


def run_by(name: str) -> Path | None:
    """The test that a page says runs its blocks, where that is not this one."""
    found = _ELSEWHERE.search((ROOT / name).read_text(encoding="utf-8"))
    return ROOT / found.group(1) if found else None


def runnable(name: str) -> bool:
    """Whether a page has a block that needs a server or an interpreter, and leaves it to us."""
    if run_by(name) is not None:
        return False
    return any(block.language in ("sh", "python") and block.reason is None for block in blocks_of(name))
