"""The native download: a model folder as one zip, made once, at the first request for it, and kept in the store.

Stored, not deflated (weights do not shrink), with fixed dates. Made as a stream, so memory stays flat.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator

from app.errors import NotFound
from app.models.service import StoredFile, archive_key
from app.models.tables import Model
from app.platform import Platform, session_scope
from app.storage import Store, Stored
from app.threads import in_bulk, in_thread

_DATE = (1980, 1, 1, 0, 0, 0)
_ENTRY_BYTES = 4096  # more than the zip and a manifest made here spend on one file


async def make_archive(platform: Platform, model_id: str, files: list[StoredFile]) -> Stored:
    """Write the zip to the store and note its size and digest. Two at once write the same bytes; the last one stays."""
    most = sum(file["size"] + _ENTRY_BYTES for file in files) + _ENTRY_BYTES
    stored = await platform.store.put_stream(archive_key(model_id), zip_stream(platform.store, files), most)
    await in_thread(_note, platform, model_id, stored)
    return stored


def _note(platform: Platform, model_id: str, stored: Stored) -> None:
    """Raises NotFound where the model was deleted meanwhile; its zip goes too."""
    with session_scope(platform) as session:
        row = session.get(Model, model_id, with_for_update=True)
        if row is not None:
            row.archive_bytes, row.archive_sha256 = stored.size, stored.sha256
    if row is None:
        platform.store.delete(stored.key)
        raise NotFound("model", model_id)


async def zip_stream(store: Store, files: list[StoredFile]) -> AsyncIterator[bytes]:
    """The bytes of the zip, a block at a time. A folder without its own manifest gets one."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            entry = _entry(file["path"], file["size"])
            target = archive.open(entry, "w")
            async for block in store.stream(file["key"]):
                await in_bulk(target.write, block)  # takes a checksum
                yield sink.take()
            target.close()
            yield sink.take()
        if not any(file["path"] == "manifest.json" for file in files):
            listed = [{"path": file["path"], "size": file["size"], "sha256": file["sha256"]} for file in files]
            text = json.dumps({"files": listed}, indent=1).encode()
            archive.writestr(_entry("manifest.json", len(text)), text)
    yield sink.take()


def _entry(path: str, size: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path, _DATE)
    entry.external_attr = 0o644 << 16
    entry.file_size = size  # tells the library in time whether this entry needs 64-bit sizes
    return entry


class _Sink(io.RawIOBase):
    """Takes what the zip library writes; it cannot seek, so sizes follow each entry."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        view = memoryview(content)  # type: ignore[arg-type]
        self._buffer += view
        return view.nbytes

    def tell(self) -> int:
        raise OSError("a stream")

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken
