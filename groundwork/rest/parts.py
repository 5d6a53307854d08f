"""A file on its way up: its parts with their digests, and the form of a small one."""

from __future__ import annotations

import hashlib
import json
import mimetypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from groundwork.errors import Damaged, GroundworkError
from groundwork.rest.file_values import Upload
from groundwork.rest.values import Json

PART_BYTES = 8 * 2**20
AT_ONCE = 4
"""Parts on their way at a time; as many, and one more, are in memory."""
MAX_PARTS = 10_000


@dataclass(frozen=True)
class Part:
    """A piece of a file, as it was read."""

    content: bytes
    sha256: str


@dataclass
class Reading:
    """A file read once, in order; after the last part `sha256` is that of the whole."""

    path: Path
    size: int
    part_bytes: int = PART_BYTES
    _whole: Any = field(default_factory=hashlib.sha256)

    def parts(self) -> Iterator[Part]:
        """The parts, each of the same size but the last; a function of the file alone, so a second run cuts alike.

        Raises:
            Damaged: the file became shorter or longer meanwhile.
        """
        step, read = max(self.part_bytes, -(-self.size // MAX_PARTS)), 0
        with self.path.open("rb") as stream:
            while content := stream.read(step):
                read += len(content)
                self._whole.update(content)
                yield Part(content, hashlib.sha256(content).hexdigest())
        if read != self.size:
            raise Damaged(f"{self.path} changed while it was read: it had {self.size} bytes and now has {read}")

    @property
    def sha256(self) -> str:
        """Hexadecimal."""
        found: str = self._whole.hexdigest()
        return found

    def check(self, upload: Upload) -> None:
        """Raises GroundworkError where a broken upload was of another file."""
        if upload.bytes != self.size:
            told = f"upload {upload.id} is of {upload.filename} with {upload.bytes} bytes"
            raise GroundworkError(f"{told}; {self.path.name} has {self.size}: it is another file, or it changed")


class Watched:
    """A file that tells how far it has been read; what a long form is sent from."""

    def __init__(self, stream: BinaryIO, size: int, told: Callable[[int, int], None] | None) -> None:
        self._stream, self._size, self._told = stream, size, told

    def read(self, count: int = -1) -> bytes:
        """As a file's."""
        content = self._stream.read(count)
        if self._told is not None and content:
            self._told(self._stream.tell(), self._size)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's; a form that is sent again begins here."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """As a file's."""
        return self._stream.tell()


def media_type(path: Path) -> str:
    """As its name says."""
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def form_fields(fields: Json) -> dict[str, str]:
    """Form fields as the API reads them: what is no string is JSON."""
    given = {name: value for name, value in fields.items() if value is not None}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}


def local_or_hub(source: Path | str) -> Path | str:
    """A path of this machine, or the name of a hub's repository. Raises FileNotFoundError for a path without a file."""
    path = Path(source)
    if path.exists():
        return path
    name = str(source)
    looks_local = isinstance(source, Path) or name.count("/") != 1 or name.startswith((".", "/", "~"))
    if looks_local or path.suffix in (".zip", ".safetensors"):
        raise FileNotFoundError(f"{name} is no file or folder here, and a hub's repository is written owner/name")
    return name
