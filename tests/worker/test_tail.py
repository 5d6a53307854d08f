"""Reading events and output while they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core.events import MAX_LINE_BYTES
from worker.tail import MAX_EVENTS, EventTail, LogTail


def line(seq: int, **fields: Any) -> bytes:
    event = {"type": "metrics", "seq": seq, "time": 1.0, "step": seq, "values": {"loss": 0.5}} | fields
    return json.dumps(event).encode() + b"\n"


def drain(tail: EventTail) -> list[int]:
    seen = []
    while batch := tail.read():
        seen += [e["seq"] for e in batch]
        tail.commit()
    tail.commit()
    return seen


def test_a_batch_is_the_same_until_it_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + line(2))
    tail = EventTail(path)
    assert tail.read() == tail.read()
    assert tail.commit() and tail.read() == [] and not tail.commit()


def test_a_line_still_being_written_waits_for_its_end(tmp_path: Path) -> None:
    path, whole = tmp_path / "events.jsonl", line(1)
    path.write_bytes(whole[:20])
    tail = EventTail(path)
    assert tail.read() == []
    path.write_bytes(whole)
    assert drain(tail) == [1]


def test_a_batch_has_at_most_a_thousand_events_and_a_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    long = {"type": "message", "level": "info", "code": "x", "message": "m" * 3900, "step": None}
    many = b"".join(json.dumps({"seq": n, "time": 1.0} | long).encode() + b"\n" for n in range(1, 401))
    path.write_bytes(many + b"".join(line(n) for n in range(401, 3001)))
    tail, total = EventTail(path), 0
    while batch := tail.read():
        assert len(batch) <= MAX_EVENTS and len(json.dumps(batch)) <= 1_000_000
        total += len(batch)
        tail.commit()
    assert total == 3000


def test_what_is_no_event_is_dropped_without_losing_its_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    bad = [b"{\n", b"\n", b"[1]\n", b"\xff\xfe\n", b'{"type": "metrics"}\n', line(2, values={"loss": float("nan")})]
    path.write_bytes(line(1) + b"".join(bad) + b"x" * (3 * MAX_LINE_BYTES) + b"\n" + line(2) + line(2) + line(3))
    assert drain(EventTail(path)) == [1, 2, 3]


def test_a_number_the_engine_counted_but_nobody_can_read_becomes_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + b"x" * 100_000 + b"\n" + line(4))
    batch = EventTail(path).read()
    assert [e["seq"] for e in batch] == [1, 2, 4]
    assert batch[1]["code"] == "events_dropped" and batch[1]["message"].startswith("2 event(s)")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=8), st.integers(1, 40))
def test_however_the_file_grows_every_event_comes_once(tmp_path_factory: Any, cuts: list[int], count: int) -> None:
    path = tmp_path_factory.mktemp("tail") / "events.jsonl"
    content = b"".join(line(n) + (b"z" * 70_000 + b"\n" if n % 7 == 0 else b"") for n in range(1, count + 1))
    tail, seen = EventTail(path), []
    for cut in [*sorted(cuts), len(content)]:
        path.write_bytes(content[:cut])
        seen += drain(tail)
    assert seen == list(range(1, count + 1))


def test_output_is_read_in_whole_characters(tmp_path: Path) -> None:
    path, text = tmp_path / "log.txt", "ä€🙂" * 1000
    path.write_text(text)
    log, pieces = LogTail(path, 10**6), []
    while (piece := log.read(most=7))[0]:
        pieces.append(piece[0])
        log.commit(piece[1])
    assert "".join(pieces) == text


def test_bytes_that_are_no_text_do_not_stop_the_output(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"\xff\x80\x80\x80\x80\x00end\n" + b"\xf0")
    text, _ = LogTail(path, 10**6).read()
    assert "end\n" in text and "\0" not in text


def test_output_beyond_the_cap_is_cut_from_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"0123456789" * 10)
    log = LogTail(path, 50)
    text, end = log.read()
    assert text.startswith("0123456789" * 5) and text.endswith("not kept]\n")
    log.commit(end)
    assert log.read() == ("", 50) and path.stat().st_size == 0
