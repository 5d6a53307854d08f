"""Reading what a run writes while it writes it: whole event lines and pieces of raw output, from a known place."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ssl_core.events import EVENT, MAX_LINE_BYTES

# A body may hold 1 MB, and one byte of raw output may become six in JSON.
MAX_EVENTS, MAX_BATCH_BYTES, MAX_LOG_BYTES = 1000, 900_000, 128 * 1024
Event = dict[str, Any]
log = logging.getLogger(__name__)


class EventTail:
    """`events.jsonl` from where the last committed batch ended. Nothing is kept in memory but that place.

    A line that is too long, is not an event or repeats a `seq` is dropped; where the engine counted it, a warning
    takes its number, so that the user sees the gap.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset, self._seq, self._skipping = 0, 0, False
        self._dropped = 0
        self._next: tuple[int, int, bool] = (0, 0, False)

    @property
    def offset(self) -> int:
        """Bytes of the file dealt with."""
        return self._offset

    def size(self) -> int:
        """Bytes of the file."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self) -> list[Event]:
        """The next events, at most one batch; the same ones again until `commit`."""
        batch: list[Event] = []
        self._next, room = (self._offset, self._seq, self._skipping), MAX_BATCH_BYTES
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return batch
        with stream:
            stream.seek(self._offset)
            while len(batch) < MAX_EVENTS - 1 and room > MAX_LINE_BYTES:
                line = stream.readline(MAX_LINE_BYTES + 1)
                half_written = not line.endswith(b"\n") and len(line) <= MAX_LINE_BYTES
                if not line or (half_written and not self._next[2]):
                    break
                room -= len(line)
                batch += self._take(line)
                self._next = (stream.tell(), *self._next[1:])
        return batch

    def commit(self) -> bool:
        """The batch last read is safe elsewhere. True if it moved on."""
        moved = self._next[0] > self._offset
        self._offset, self._seq, self._skipping = self._next
        return moved

    def _take(self, line: bytes) -> list[Event]:
        offset, seq, skipping = self._next
        whole = line.endswith(b"\n")
        if skipping or not whole:
            if not skipping:
                self._drop(seq, "longer than 64 KiB")
            self._next = (offset, seq, not whole)
            return []
        event = _parse(line)
        if event is None or event["seq"] <= seq:
            self._drop(seq, "not an event" if event is None else "a number twice")
            return []
        self._next = (offset, event["seq"], False)
        return [*_gap_warning(seq, event), event]

    def _drop(self, seq: int, why: str) -> None:
        self._dropped += 1
        if self._dropped <= 10:
            log.warning("%s: dropped the line after event %d: %s", self._path.parent.name, seq, why)


class LogTail:
    """`log.txt`, at most `limit` bytes of it; beyond that the file itself is cut so that it cannot fill the disk."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._limit = path, limit
        self._place = 0

    def read(self, most: int = MAX_LOG_BYTES) -> tuple[str, int]:
        """The next piece and where it ends; repeated until `commit(end)`. Bytes that are no text are replaced."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return "", self._place
        if self._place >= self._limit:
            if size > self._limit:
                os.truncate(self._path, 0)
            return "", self._place
        with self._path.open("rb") as stream:
            stream.seek(self._place)
            raw = stream.read(min(most, self._limit - self._place))
        cut = _whole_characters(raw)
        text = raw[:cut].decode(errors="replace").replace("\0", "\ufffd")
        end = self._place + cut
        return (text + "\n[the rest of the output is not kept]\n" if end >= self._limit else text), end

    def commit(self, end: int) -> None:
        """Everything before `end` is safe elsewhere."""
        self._place = end


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
        EVENT.validate_python(event)
    except (ValueError, ValidationError, RecursionError):
        return None
    return dict(event)


def _gap_warning(seq: int, event: Event) -> list[Event]:
    missing = event["seq"] - seq - 1
    if not missing:
        return []
    message = f"{missing} event(s) of the run could not be read and were dropped."
    warning = {"type": "message", "level": "warning", "code": "events_dropped", "message": message}
    return [{"seq": seq + 1, "time": event["time"], **warning}]


def _whole_characters(raw: bytes) -> int:
    """How many bytes of `raw` do not end inside a UTF-8 character."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        if byte >= 0xC0:
            need = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(raw) - back if need > back and len(raw) > back else len(raw)
        if byte < 0x80:
            break
    return len(raw)
