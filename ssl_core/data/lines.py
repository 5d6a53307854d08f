"""Lines of a file of any size, in flat memory: an endless line is skipped, a sea of empty ones is crossed in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

_BLOCK = 2**20
_BOM = b"\xef\xbb\xbf"


class Readable(Protocol):
    """What gives its bytes in order, none at its end."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes."""


def lines(file: Readable, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line with its end) of each line; None in place of one that is longer than `longest` bytes.

    Runs of blank lines are counted, not given.
    """
    number, rest, skipping = 0, b"", False
    first = True
    while block := file.read(_BLOCK):
        if first:
            block, first = block.removeprefix(_BOM), False
        if not rest and not skipping and not block.strip(b"\r\n"):
            number += block.count(b"\n")
            continue
        parts = (rest + block).split(b"\n")
        rest = parts.pop()
        for part in parts:
            number += 1
            if skipping or len(part) > longest:
                skipping = False
                yield number, None
            else:
                yield number, part + b"\n"
        if len(rest) > longest:
            rest, skipping = b"", True
    if rest or skipping:
        yield number + 1, None if skipping else rest
