"""What models are asked: any number of texts, tokens, files and rows, in requests of a size that servers take."""

from __future__ import annotations

import array
import base64
import mimetypes
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from groundwork.errors import GroundworkError

MOST_ITEMS = 256
MOST_CHARACTERS = 8 * 2**20
_TYPES = {".jpg": "image/jpeg", ".webp": "image/webp", ".flac": "audio/flac", ".ogg": "audio/ogg", ".mp3": "audio/mpeg",
          ".wav": "audio/wav"}  # fmt: skip
"""Python's own table lacks some of them where the system has none."""


def batches(input: Any) -> Iterator[list[Any]]:
    """The inputs in lists that fit one request each; an input that is one item makes one list.

    Raises:
        GroundworkError: a `Path` whose name is not that of a picture or a sound.
    """
    batch: list[Any] = []
    weight = 0
    for item in map(as_item, _listed(input)):
        size = _weight(item)
        if batch and (len(batch) == MOST_ITEMS or weight + size > MOST_CHARACTERS):
            yield batch
            batch, weight = [], 0
        batch.append(item)
        weight += size
    if batch:
        yield batch


def media_type(name: str) -> str:
    """Of a file of this name; nothing where it has no ending that says so."""
    return _TYPES.get(Path(name).suffix.lower()) or mimetypes.guess_type(name)[0] or ""


def vector_of(embedding: Any) -> list[float]:
    """From base64 of little-endian float32, or as numbers."""
    if not isinstance(embedding, str):
        return [float(value) for value in embedding]
    numbers = array.array("f", base64.b64decode(embedding))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _listed(input: Any) -> list[Any]:
    one = isinstance(input, (str, Path, Mapping))
    if not one:
        input = list(input)
        one = bool(input) and all(isinstance(each, int) for each in input)
    return [input] if one else input


def as_item(item: Any) -> Any:
    """One input as it is sent: a file becomes a data URI. Raises as `batches`."""
    if isinstance(item, Path):
        kind = media_type(item.name).partition("/")[0]
        if kind not in ("image", "audio"):
            raise GroundworkError(f"{item} is neither a picture nor a sound by its name; give its text, or an item")
        return {kind: _uri(item)}
    if isinstance(item, Mapping):
        return {name: _uri(value) if isinstance(value, Path) else value for name, value in item.items()}
    return item


def _uri(path: Path) -> str:
    kind = media_type(path.name) or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _weight(item: Any) -> int:
    if isinstance(item, Mapping):
        return sum(_weight(value) for value in item.values())
    if isinstance(item, str):
        return len(item)
    return 8 * len(item) if isinstance(item, list) else 8
