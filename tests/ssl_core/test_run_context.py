"""Events on disk and the word to stop."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from ssl_core.events import (
    EVENT,
    MAX_LINE_BYTES,
    CheckpointEvent,
    MessageEvent,
    MetricsEvent,
    ProgressEvent,
    SampleEvent,
    StageEvent,
)
from ssl_core.run_context import FileContext


def lines(folder: Path) -> list[bytes]:
    return (folder / "events.jsonl").read_bytes().splitlines()


def test_events_are_numbered_from_one_and_valid(tmp_path: Path) -> None:
    context = FileContext(tmp_path)
    context.emit("stage", stage="training")
    context.emit("metrics", step=3, values={"train/loss": 1.5})
    parsed = [EVENT.validate_json(line) for line in lines(tmp_path)]
    assert [event.seq for event in parsed] == [1, 2]


@pytest.mark.parametrize("shape", [StageEvent, ProgressEvent, MetricsEvent, MessageEvent, SampleEvent, CheckpointEvent])
def test_what_is_not_known_is_left_out_of_the_line_and_the_line_is_still_an_event(
    tmp_path: Path, shape: type[BaseModel]
) -> None:
    known = {"stage": "training", "step": 1, "values": {}, "level": "info", "code": "c", "message": "m", "name": "n"}
    known |= {"path": "p", "media_type": "text/plain", "total_steps": None, "examples_per_second": None}
    kind = shape.model_fields["type"].default
    told = {name: known.get(name, field.default) for name, field in shape.model_fields.items() if name in known}
    FileContext(tmp_path).emit(kind, **told)
    assert EVENT.validate_json(lines(tmp_path)[0]).type == kind
    assert b"null" not in lines(tmp_path)[0]


def test_numbers_that_are_not_finite_travel_as_names(tmp_path: Path) -> None:
    FileContext(tmp_path).emit("metrics", step=1, values={"a": math.nan, "b": -math.inf, "c": 2.0})
    assert json.loads(lines(tmp_path)[0])["values"] == {"a": "nan", "b": "-inf", "c": 2.0}


def test_half_a_line_of_a_killed_attempt_is_dropped_and_counting_goes_on(tmp_path: Path) -> None:
    FileContext(tmp_path).emit("stage", stage="training")
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"type": "sta')
    FileContext(tmp_path).emit("stage", stage="exporting")
    assert [json.loads(line)["seq"] for line in lines(tmp_path)] == [1, 2]


def test_a_long_message_is_cut_and_stays_within_a_line(tmp_path: Path) -> None:
    # The worst case: every character takes twelve bytes of JSON.
    FileContext(tmp_path).emit("message", level="info", code="x", message="\U0001f600" * 10_000)
    assert len(json.loads(lines(tmp_path)[0])["message"]) == 4000
    assert len(lines(tmp_path)[0]) < MAX_LINE_BYTES


def test_an_event_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        FileContext(tmp_path).emit("stage", stage="dreaming")


@pytest.mark.parametrize(
    ("content", "reason"), [("cancel", "cancel"), ("pause\n", "pause"), ("drain", "drain"), ("?", "drain")]
)
def test_the_stop_file_says_why(tmp_path: Path, content: str, reason: str) -> None:
    context = FileContext(tmp_path)
    assert context.should_stop() is None
    (tmp_path / "stop").write_text(content)
    assert context.should_stop() == reason


def test_sigterm_means_drain(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    context = FileContext(tmp_path)
    context.listen_to_sigterm()
    try:
        signal.raise_signal(signal.SIGTERM)
        assert context.should_stop() == "drain"
    finally:
        signal.signal(signal.SIGTERM, before)
