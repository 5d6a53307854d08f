"""The `RunContext` of a run directory: events to `events.jsonl`, the stop word from a file or from SIGTERM."""

from __future__ import annotations

import json
import math
import signal
import time
from pathlib import Path
from typing import Any, cast

from ssl_core.context import StopReason
from ssl_core.events import EVENT, MAX_LINE_BYTES

_WORDS = ("cancel", "pause", "drain")


def plain(value: Any) -> Any:
    """JSON without NaN: a number that is not finite travels as its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


class FileContext:
    """Appends one flushed line an event, `seq` from 1. A folder run again goes on counting after its last whole line.

    A file, never a pipe: a pipe nobody reads would block the training loop.
    """

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self._terminated = False
        path = workdir / "events.jsonl"
        kept = path.read_bytes() if path.exists() else b""
        whole = kept[: kept.rfind(b"\n") + 1]
        if whole != kept:
            # A killed attempt can leave half a line; a reader must never see it glued to the next event.
            path.write_bytes(whole)
        self._seq = whole.count(b"\n")
        self._file = path.open("ab")

    def emit(self, type: str, **fields: Any) -> None:
        """Raises ValueError where an event does not have the shape of `ssl_core.events`."""
        if type == "message":
            fields["message"] = fields["message"][:4000]
        event = EVENT.validate_python({"type": type, "seq": self._seq + 1, "time": time.time(), **plain(fields)})
        line = json.dumps(event.model_dump(exclude_none=True), allow_nan=False).encode() + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"a {type} event of {len(line)} bytes is over the limit of {MAX_LINE_BYTES}")
        self._file.write(line)
        self._file.flush()
        self._seq += 1

    def listen_to_sigterm(self) -> None:
        """From now on SIGTERM means `drain`: save, leave, be resumed elsewhere."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_terminated", True))

    def should_stop(self) -> StopReason | None:
        """The word in `stop`, else `drain` after SIGTERM. One stat a call."""
        path = self.workdir / "stop"
        if path.exists():
            word = path.read_text().strip()
            return cast(StopReason, word) if word in _WORDS else "drain"
        return "drain" if self._terminated else None

    def close(self) -> None:
        self._file.close()
