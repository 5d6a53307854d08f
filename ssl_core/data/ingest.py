"""Ingest: an uploaded file becomes a canonical dataset folder (docs/contracts.md §3), or a clear reason why not.

Runs in the engine's subprocess, streams, and keeps memory flat: a row is read, checked, measured, written, forgotten.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssl_core.context import RunContext, Stopped
from ssl_core.data import folders, parquet, profile, sniff, tables
from ssl_core.data.intake import BadRows, Reading, Row, Upload
from ssl_core.data.row_files import RowWriter
from ssl_core.durable import committed, sha256
from ssl_core.errors import DataError, EngineError
from ssl_core.modalities import MODALITIES
from ssl_core.spec import IngestSpec, RunOrder

MOST_BAD_SHARE = 0.5
"""With more bad rows than good ones the file is not what its owner thinks it is."""
TOLD_ROWS = 20
"""Bad rows that are also told as events, so that an invalid dataset has its reasons too."""
_PROGRESS_SECONDS = 1.0


def run(order: RunOrder, context: RunContext) -> dict[str, Any]:
    """Ingest the file that the order names into `workdir/artifact`; returns the profile with the dataset's `digest`.

    Raises:
        DataError: nothing of the file can be used, most of it cannot, or it is unsafe; `param` is `file:row`.
        Stopped: asked to leave; nothing is kept.
    """
    spec = order.spec
    assert isinstance(spec, IngestSpec)
    if spec.modality not in (None, *MODALITIES):
        raise EngineError("unknown_modality", f"modality is one of {', '.join(MODALITIES)}", "modality")
    upload = Upload(Path(order.datasets[spec.dataset]), spec.filename, spec.columns, spec.modality, BadRows())
    scratch = context.workdir / "ingest"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        summary = _ingest(upload, scratch, context)
        with committed(context.workdir / "artifact", digest=summary["digest"]) as out:
            for path in scratch.iterdir():
                path.rename(out / path.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return summary


def open_upload(upload: Upload) -> Reading:
    """The rows of an upload, by what its bytes are.

    Raises:
        DataError: as `sniff.kind` and the readers; `unsupported_type` where its modality is not found in such a file.
    """
    kind = sniff.kind(upload.path, upload.name)
    holds = {name: one for name, one in MODALITIES.items() if f".{kind}" in one.formats}
    if upload.modality not in (None, *holds):
        message = f"a {kind} file holds {' or '.join(holds)}, not {upload.modality}"
        raise DataError("unsupported_type", message, upload.name)
    candidates = [one for name, one in holds.items() if upload.modality in (None, name)]
    if f".{kind}" in sniff.OWN:
        return candidates[0].read(upload, kind)
    if kind == "parquet":
        return parquet.read(upload, candidates)
    if kind in ("txt", "jsonl", "csv"):
        return tables.read(upload, kind, candidates)
    return folders.read(upload, kind, candidates)


def _ingest(upload: Upload, out: Path, context: RunContext) -> dict[str, Any]:
    reading = open_upload(upload)
    measured = profile.Profile(reading.modality, reading.targets.by_name)
    told = _Progress(context)
    if reading.ignored:
        text = f"columns that nothing was taken from: {', '.join(reading.ignored[:20])}"
        context.emit("message", level="info", code="columns_ignored", message=text[:1000])
    good = 0
    with RowWriter(out, reading.modality, reading.targets.by_name) as writer:
        for row in reading.rows:
            columns = _accepted(row, measured, upload.bad)
            if columns is not None:
                writer.add(columns)
                good += 1
            told.say(reading, upload.bad)
    told.finish(upload.bad)
    _judge(good, upload)
    refused = upload.bad.count + upload.bad.parts
    summary = {**measured.summary(), "bad_rows": refused, "digest": digest(out.glob("rows-*.parquet"))}
    _write(out / "profile.json", summary)
    _write(out / "preview.json", measured.preview)
    lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in upload.bad.kept)
    (out / "errors.jsonl").write_text("".join(lines), encoding="utf-8")
    return summary


def _accepted(row: Row, measured: profile.Profile, bad: BadRows) -> dict[str, Any] | None:
    """The row's canonical columns; None where it turned out bad, which is reported."""
    try:
        return measured.add(row)
    except DataError as error:
        if error.param is not None:  # of the whole dataset, not of this row
            raise
        file, _, number = row.source.rpartition(":")
        bad.add(file, int(number), error)
        return None


def _judge(good: int, upload: Upload) -> None:
    """Raises DataError where too little is left, with the code and place of the first bad row."""
    bad = upload.bad
    if good == 0 and bad.count == 0:
        raise DataError("empty_dataset", "the file holds no rows", upload.name)
    if good > 0 and bad.count <= MOST_BAD_SHARE * (good + bad.count):
        return
    first = bad.kept[0]
    told = f"{bad.count:,} of {good + bad.count:,} rows cannot be used; the first: {first['message']}"
    raise DataError(first["code"], told, f"{first['file']}:{first['row']}")


def digest(paths: Iterable[Path]) -> str:
    """The identity of a dataset: sha256 over one line `<name> <sha256>` for each row file, sorted by name."""
    lines = sorted(f"{path.name} {sha256(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False), encoding="utf-8")


class _Progress:
    """Tells how far it is about once a second, tells the first bad rows, and asks whether to stop."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._next = time.monotonic() + _PROGRESS_SECONDS
        self._told = 0

    def say(self, reading: Reading, bad: BadRows) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PROGRESS_SECONDS
        total = max(reading.total, reading.done)
        self._context.emit("progress", stage="ingesting", step=reading.done, total_steps=total)
        self.finish(bad)
        reason = self._context.should_stop()
        if reason is not None:
            raise Stopped(reason)

    def finish(self, bad: BadRows) -> None:
        """Tell the bad rows of which nothing was said yet, up to the limit."""
        for entry in bad.kept[self._told : TOLD_ROWS]:
            message = f"{entry['file']}:{entry['row']}: {entry['message']}"
            self._context.emit("message", level="warning", code=entry["code"], message=message)
        self._told = max(self._told, min(len(bad.kept), TOLD_ROWS))
