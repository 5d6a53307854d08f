"""A file on its way down: written beside its target, checked, renamed at the end."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import httpx2

from groundwork.errors import Damaged
from groundwork.rest.names import named_by


class Partial:
    """What there is of a download, and what to ask for next.

    Args:
        target: the file; a folder that exists takes it under the server's name for it, or `otherwise`.
        progress: called with the bytes that have come and the bytes in all, -1 where the server does not tell.
    """

    def __init__(
        self, target: Path, otherwise: str = "", progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._target, self._otherwise, self._progress = target, otherwise, progress
        self._hash = hashlib.sha256()
        self._beside = target
        self._out: BinaryIO | None = None
        self._tag: str | None = None
        self._digest: str | None = None
        self.have, self.size = 0, -1

    @property
    def complete(self) -> bool:
        """Whether every byte has come."""
        return self.have == self.size

    def headers(self) -> dict[str, str]:
        """Of the next request: the rest, if it is still the same file."""
        plain = {"Accept-Encoding": "identity"}
        if self._tag is None or self.have == 0:
            return plain
        return {**plain, "Range": f"bytes={self.have}-", "If-Range": self._tag}

    def begin(self, answer: httpx2.Response) -> None:
        """Take an answer's headers: the rest is coming, or the whole again."""
        if answer.status_code == 206 and answer.headers.get("content-range", "").startswith(f"bytes {self.have}-"):
            return
        self._tag = answer.headers.get("etag")
        self._digest = _sha256(answer.headers)
        self.size = int(answer.headers.get("content-length", -1))
        self._restart(answer)

    def write(self, chunk: bytes) -> None:
        """The next bytes."""
        assert self._out is not None, "begin comes before write"
        self._out.write(chunk)
        self._hash.update(chunk)
        self.have += len(chunk)
        if 0 <= self.size < self.have:
            raise Damaged(f"{self._target}: more than the {self.size} bytes that the server told of arrived")
        if self._progress is not None:
            self._progress(self.have, self.size)

    def end(self) -> None:
        """An answer came to its proper end: where it told no size, that was all."""
        if self.size < 0:
            self.size = self.have

    def finish(self) -> Path:
        """Rename it to where it belongs. Raises Damaged where its digest is not the server's."""
        assert self._out is not None, "begin comes before finish"
        self._out.close()
        found = self._hash.hexdigest()
        if self._digest is not None and found != self._digest:
            raise Damaged(f"{self._target}: the sha256 of what arrived is {found}, the server's {self._digest}")
        os.replace(self._beside, self._target)
        return self._target

    def discard(self) -> None:
        """Remove what was not finished."""
        if self._out is not None:
            self._out.close()
            self._beside.unlink(missing_ok=True)

    def _restart(self, answer: httpx2.Response) -> None:
        if self._out is None:
            if self._target.is_dir():
                self._target /= named_by(answer.headers.get("content-disposition"), self._otherwise)
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._beside = self._target.with_name(f".{self._target.name[:100]}.{uuid.uuid4().hex[:8]}.part")
            self._out = self._beside.open("xb")
        self._out.seek(0)
        self._out.truncate()
        self._hash, self.have = hashlib.sha256(), 0


def _sha256(headers: httpx2.Headers) -> str | None:
    """Hexadecimal, of the whole file; from `Repr-Digest` (RFC 9530), else from an `ETag` that is one."""
    for part in headers.get("repr-digest", "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "sha-256":
            return base64.b64decode(value.strip(":")).hex()
    tag = headers.get("etag", "").strip('"')
    return tag if len(tag) == 64 and set(tag) <= set("0123456789abcdef") else None
