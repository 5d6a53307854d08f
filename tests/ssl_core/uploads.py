"""Uploads made by the tests, and the real ingest of one."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
from PIL import Image

from ssl_core.context import MemoryContext
from ssl_core.data import ingest
from ssl_core.spec import IngestSpec, RunOrder


class Ingested:
    """A dataset folder that ingest made."""

    def __init__(self, folder: Path, summary: dict[str, Any], events: list[dict[str, Any]]) -> None:
        self.folder, self.summary, self.events = folder, summary, events

    @property
    def rows(self) -> list[dict[str, Any]]:
        tables = [parquet.read_table(path) for path in sorted(self.folder.glob("rows-*.parquet"))]
        return [row for table in tables for row in table.to_pylist()]

    @property
    def errors(self) -> list[tuple[str, int, str]]:
        lines = (self.folder / "errors.jsonl").read_text().splitlines()
        return [(e["file"], e["row"], e["code"]) for e in map(json.loads, lines)]

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


def take(
    tmp_path: Path, name: str, data: bytes, *, modality: str | None = None, columns: dict[str, str] | None = None
) -> Ingested:
    """Write an upload and ingest it; raises what ingest raises."""
    path = tmp_path / "upload"
    path.write_bytes(data)
    context = MemoryContext(tmp_path / "run")
    spec = IngestSpec(dataset="ds_1", filename=name, modality=modality, columns=columns or {})
    summary = ingest.run(RunOrder(spec=spec, datasets={"ds_1": str(path)}, cache=str(tmp_path)), context)
    return Ingested(context.workdir / "artifact", summary, context.events)


def picture(
    seed: int = 0, *, size: tuple[int, int] = (24, 16), mode: str = "RGB", format: str = "PNG", **save: Any
) -> bytes:
    """The bytes of a picture file of random pixels; `size` is (width, height)."""
    width, height = size
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels, mode=mode).save(out, format, **save)
    return out.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip of files by path."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar of files by path; mode `w:gz` packs it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
