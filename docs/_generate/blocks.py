"""The code blocks of a page, for the test that executes them and for `renew`, which writes their output into it.

A line of HTML directly above a fence says what is special about it, and is seen by nobody who reads the page:

    <!-- not run: needs Docker -->      the block is not executed, and why
    <!-- server -->                     the block starts the server that the other blocks of the page talk to
    <!-- fails -->                      the block shows what is said about a mistake
    <!-- differs: which rows are near -->   of shown output, whose lines but the first depend on a run, and why

And one at the head of a page: `<!-- given: texts -->` says that a dataset of texts and a model pretrained on it are
there already: `ds_…` and `mdl_…` of that page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^( *)```([\w+-]*)[^`]*$")
_NOTES = (
    r"not run: (?P<reason>\S.*?)",
    r"(?P<server>server)",
    r"(?P<fails>fails)",
    r"differs: (?P<differs>\S.*?)",
)
_NOTE = re.compile(rf"^\s*<!-- (?:{'|'.join(_NOTES)}) -->\s*$")


_GIVEN = re.compile(r"^<!-- given: (\w+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: where it stands, as a person names it.
        line: of its opening fence, from 1.
        language: the word behind the fence; empty where there is none.
        code: what is inside.
        reason: why it is not run; None = it is.
        server: whether it starts the server.
        fails: whether its exit status is another than 0.
        differs: why shown output is another in each run; its first line is not.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str | None = None
    server: bool = False
    fails: bool = False
    differs: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def given(text: str) -> str | None:
    """What a page takes as there."""
    found = _GIVEN.search(text)
    return found.group(1) if found else None


def blocks(text: str, page: str) -> list[Block]:
    """Every fenced block of a page, in order."""
    return list(_blocks(text.splitlines(), page))


def _blocks(lines: list[str], page: str) -> Iterator[Block]:
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        if opening is None:
            at += 1
            continue
        indent, language = opening.groups()
        end = next((n for n in range(at + 1, len(lines)) if lines[n].strip() == "```"), None)
        if end is None:
            raise ValueError(f"{page}:{at + 1}: a fence is opened and never closed")
        note = _NOTE.match(lines[at - 1]) if at else None
        code = "\n".join(line.removeprefix(indent) for line in lines[at + 1 : end])
        reason = note.group("reason") if note else None
        server, fails = (bool(note and note.group(name)) for name in ("server", "fails"))
        yield Block(page, at + 1, language, code, reason, server, fails, note.group("differs") if note else None)
        at = end + 1
