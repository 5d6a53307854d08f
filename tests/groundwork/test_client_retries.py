"""What the client does with answers that are not the one hoped for: a server that answers by a script."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from groundwork import (
    APIStatusError,
    Conflict,
    ConnectionFailed,
    Damaged,
    GroundworkError,
    NotFound,
    RateLimited,
    Retries,
    ServerError,
    UnsafeName,
    UploadBroken,
)
from tests.groundwork.cutting import Answer, Asked, Scripted
from tests.groundwork.driven import Opened, opener

QUICK = Retries(times=3, first=0.01, most=0.02)


def envelope(code: str, message: str = "Not now.") -> bytes:
    return json.dumps({"error": {"message": message, "type": "t", "param": None, "code": code}}).encode()


@pytest.fixture(params=["sync", "async"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    with opener(request.param) as made:
        yield made


@pytest.mark.parametrize("answer", [
    Answer(503, envelope("database_unavailable"), {"Retry-After": "0"}),
    Answer(429, envelope("rate_limit"), {"Retry-After": "0"}),
    Answer(408, envelope("request_timeout"), {"Connection": "close"}),
    Answer(409, envelope("idempotency_in_flight"), {"Retry-After": "0"}),
    Answer(400, envelope("upload_broken_off")),
    Answer(500, envelope("internal_error"), {"x-should-retry": "true"}),
    Answer(502, b"<html>bad gateway</html>", {"Content-Type": "text/html"}),
    Answer(200, b'{"id": "jo', {"Content-Length": "100"}, broken=True),
], ids=lambda each: str(each.status))  # fmt: skip
def test_a_post_is_sent_again_under_the_same_key(opened: Opened, answer: Answer) -> None:
    with Scripted(answer, answer, Answer(201, b'{"id": "job_1", "status": "queued"}')) as server:
        job = opened(server.url, "gw_key", retries=QUICK).jobs.create(type="pretrain")
    assert job.id == "job_1" and [each.body for each in server.asked] == [server.asked[0].body] * 3
    keys = [each.headers["idempotency-key"] for each in server.asked]
    assert len(keys) == 3 and len(set(keys)) == 1
    assert server.asked[0].headers["user-agent"].startswith("groundwork-python/")


@pytest.mark.parametrize(("answer", "kind"), [
    (Answer(409, envelope("in_use"), {"x-should-retry": "false", "Retry-After": "0"}), Conflict),
    (Answer(409, envelope("invalid_state")), Conflict),
    (Answer(503, envelope("gone_for_good"), {"x-should-retry": "false"}), ServerError),
    (Answer(500, envelope("internal_error")), ServerError),
    (Answer(400, envelope("malformed_json")), APIStatusError),
    (Answer(404, envelope("not_found")), NotFound),
    (Answer(429, envelope("rate_limit"), {"Retry-After": "3600"}), RateLimited),
], ids=lambda each: str(getattr(each, "status", "")))  # fmt: skip
def test_what_a_retry_cannot_help_is_raised_at_once(opened: Opened, answer: Answer, kind: type[APIStatusError]) -> None:
    with Scripted(answer) as server, pytest.raises(kind, match="Not now") as caught:
        opened(server.url, "gw_key", retries=QUICK).jobs.create(type="pretrain")
    assert len(server.asked) == 1 and caught.value.status == answer.status and not caught.value.repeated


def test_retry_after_is_waited_for_in_seconds_and_as_a_date(opened: Opened) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    busy = [Answer(503, envelope("busy"), {"Retry-After": after}) for after in ("1", date)]
    with Scripted(*busy, Answer(200, b'{"id": "ds_1"}')) as server:
        begun = time.monotonic()
        assert opened(server.url, "gw_key", retries=QUICK).datasets.get("ds_1").id == "ds_1"
    assert time.monotonic() - begun >= 1.0 and len(server.asked) == 3


def test_a_server_that_stays_away_is_told_after_every_try(opened: Opened) -> None:
    page = Answer(502, b"<html>\n<b>bad</b>\n</html>", {"Content-Type": "text/html"})
    words = r"^<html> <b>bad</b> </html> \[502\]$"
    with Scripted(page) as server, pytest.raises(ServerError, match=words):
        opened(server.url, "gw_key", retries=QUICK).datasets.get("ds_1")
    assert len(server.asked) == 4
    with pytest.raises(ConnectionFailed, match=f"no answer from {server.url} to GET /v1/datasets/ds_1") as caught:
        opened(server.url, "gw_key", retries=QUICK).datasets.get("ds_1")
    assert "\n" not in str(caught.value)


def test_a_delete_whose_answer_was_lost_has_happened(opened: Opened) -> None:
    lost = Answer(200, b"", {"Content-Length": "20"}, broken=True)
    with Scripted(lost, Answer(404, envelope("not_found"))) as server:
        assert opened(server.url, "gw_key", retries=QUICK).models.delete("mdl_1") == {"deleted": True}
    with Scripted(Answer(404, envelope("not_found"))) as server, pytest.raises(NotFound):
        opened(server.url, "gw_key", retries=QUICK).models.delete("mdl_1")


@pytest.mark.parametrize(("answer", "kind"), [
    (Answer(408, envelope("request_timeout"), {"Connection": "close"}), UploadBroken),
    (Answer(400, envelope("upload_stalled")), UploadBroken),
    (Answer(409, envelope("idempotency_in_flight"), {"Retry-After": "0"}), UploadBroken),
    (Answer(502, b"<html>bad gateway</html>", {"Content-Type": "text/html"}), UploadBroken),
    (Answer(507, envelope("disk_full")), UploadBroken),
    (Answer(409, envelope("invalid_state")), Conflict),
    (Answer(404, envelope("not_found")), NotFound),
], ids=lambda each: str(getattr(each, "status", "")))  # fmt: skip
def test_an_upload_in_parts_can_be_resumed_after_what_passes(
    opened: Opened, answer: Answer, kind: type[GroundworkError], tmp_path: Path
) -> None:
    (tmp_path / "pool.txt").write_bytes(bytes(25))
    begun = Answer(201, json.dumps({"id": "upl_1", "status": "pending", "bytes": 25, "parts": []}).encode())
    with Scripted(begun, answer) as server, pytest.raises(kind) as caught:
        gw = opened(server.url, "gw_key", retries=QUICK)
        gw.uploads.part_bytes = 10
        gw.datasets.upload(tmp_path / "pool.txt")
    assert getattr(caught.value, "upload_id", "upl_1") == "upl_1"


def serve_file(content: bytes, breaks: list[int], tags: list[str] | None = None) -> Any:
    """A script that serves a file as the API does, and ends the n-th answer early, after `breaks[n]` bytes."""
    state = {"n": 0}

    def script(asked: Asked) -> Answer:
        n, state["n"] = state["n"], state["n"] + 1
        tag = (tags or [])[n] if tags and n < len(tags) else f'"{hashlib.sha256(content).hexdigest()}"'
        start = 0
        if asked.headers.get("if-range") == tag and "range" in asked.headers:
            start = int(asked.headers["range"].removeprefix("bytes=").rstrip("-"))
        told = {"ETag": tag, "Content-Length": str(len(content) - start), "Content-Type": "application/zip"}
        if start:
            told["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        broken = n < len(breaks)
        return Answer(206 if start else 200, body[: breaks[n]] if broken else body, told, broken)

    return script


CONTENT = bytes(n % 253 for n in range(200_000))


def test_a_download_goes_on_where_it_broke(opened: Opened, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with Scripted(serve_file(CONTENT, [70_000, 0, 1, 50_000])) as server:
        gw = opened(server.url, "gw_key", retries=QUICK)
        path = gw.models.download("mdl_1", tmp_path / "m.zip", progress=lambda *seen: told.append(seen))
    assert path.read_bytes() == CONTENT and told[-1] == (len(CONTENT),) * 2
    asked = [each.headers.get("range") for each in server.asked]
    assert asked == [None, "bytes=70000-", "bytes=70000-", "bytes=70001-", "bytes=120001-"]
    assert [each[0] for each in told] == sorted(each[0] for each in told)
    assert [each.name for each in tmp_path.iterdir()] == ["m.zip"]


def test_a_file_that_changed_meanwhile_is_taken_anew(opened: Opened, tmp_path: Path) -> None:
    with Scripted(serve_file(CONTENT, [70_000], tags=['"old"'])) as server:
        path = opened(server.url, "gw_key", retries=QUICK).datasets.download("ds_1", tmp_path / "a")
    assert path.read_bytes() == CONTENT and server.asked[1].headers["if-range"] == '"old"'


def test_a_download_that_never_comes_leaves_nothing_and_what_was_there(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    never = serve_file(CONTENT, [10] + [0] * 20)
    with Scripted(never) as server, pytest.raises(ConnectionFailed, match="broke off at byte 10"):
        opened(server.url, "gw_key", retries=QUICK).datasets.download("ds_1", tmp_path / "a")
    damaged = Answer(200, CONTENT, {"ETag": f'"{"0" * 64}"'})
    with Scripted(damaged) as server, pytest.raises(Damaged, match="sha256"):
        opened(server.url, "gw_key", retries=QUICK).datasets.download("ds_1", tmp_path / "a")
    assert [each.name for each in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "before"


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/../../evil"])
def test_files_with_names_that_lead_out_are_not_written(opened: Opened, name: str, tmp_path: Path) -> None:
    listed = json.dumps({"data": [{"path": "fine", "bytes": 1}, {"path": name, "bytes": 1, "content_url": name}]})
    with Scripted(Answer(200, listed.encode()), Answer(200, b"x")) as server:
        gw = opened(server.url, "gw_key", retries=QUICK)
        with pytest.raises(UnsafeName, match="evil"):
            gw.jobs.download_files("job_1", tmp_path / "in" / "deep")
    assert not list(tmp_path.rglob("*evil*")) and len(server.asked) == 1, "nothing is fetched before all names are seen"


def test_the_key_goes_to_no_other_server(opened: Opened, tmp_path: Path) -> None:
    with Scripted(Answer(200, CONTENT)) as other:
        to_other = Answer(302, b"", {"Location": f"{other.url}/v1/x"})
        with Scripted(to_other) as server, pytest.raises(APIStatusError):
            opened(server.url, "gw_key", retries=QUICK).datasets.download("ds_1", tmp_path / "a")
    assert other.asked == [] and list(tmp_path.iterdir()) == []


def test_an_answer_that_is_no_json_is_told(opened: Opened) -> None:
    page = Answer(200, b"<html>a login page</html>", {"Content-Type": "text/html"})
    with Scripted(page) as server, pytest.raises(APIStatusError, match="is no JSON, so no Groundwork: <html>a login"):
        opened(server.url, "gw_key", retries=QUICK).datasets.get("ds_1")


def test_a_stream_that_breaks_goes_on_after_the_last_event(opened: Opened) -> None:
    def told(id: int) -> bytes:
        return f'id: evt_{id}\nevent: job.event\ndata: {{"id": "evt_{id}", "code": "c{id}"}}\n\n'.encode()

    done = b'event: done\ndata: {"status": "failed"}\n\n'
    live = {"Content-Type": "text/event-stream", "Content-Length": "100000"}
    pieces = [told(1) + told(2) + b"id: evt_3\nevent: job.ev", b": ping\n\n", told(3), told(4) + done]
    answers = [Answer(200, piece, live, broken=True) for piece in pieces]
    with Scripted(*answers) as server:
        events = list(opened(server.url, "gw_key", retries=QUICK).jobs.stream("job_1"))
    assert [each.event.code for each in events if each.event] == ["c1", "c2", "c3", "c4"]
    assert (events[-1].name, events[-1].status) == ("done", "failed")
    assert [each.headers.get("last-event-id") for each in server.asked] == [None, "evt_2", "evt_2", "evt_3"]
    silent = Answer(200, b"", live, broken=True)
    with Scripted(answers[0], silent) as server, pytest.raises(ConnectionFailed, match="does not come back"):
        list(opened(server.url, "gw_key", retries=QUICK).jobs.stream("job_1"))
    assert 4 <= len(server.asked) <= 6


def test_a_search_and_a_batch_are_asked_for_as_the_api_reads_them(opened: Opened, tmp_path: Path) -> None:
    found = {"data": [{"row": 3, "score": 0.5, "label": None}], "model": "mdl_1", "job": "job_1", "index": {}}
    with Scripted(Answer(200, json.dumps(found).encode())) as server:
        gw = opened(server.url, "gw_key", retries=QUICK)
        hits = gw.datasets.search("ds_1", "a text", limit=2, filter={"label": "x"})
        (tmp_path / "a.png").write_bytes(b"png")
        gw.datasets.search("ds_1", tmp_path / "a.png", model="mdl_1")
    assert (hits.model, hits.rows[0].row, hits.rows[0].score) == ("mdl_1", 3, 0.5)
    assert [json.loads(each.body) for each in server.asked] == [
        {"query": "a text", "limit": 2, "filter": {"label": "x"}},
        {"query": {"image": "data:image/png;base64,cG5n"}, "model": "mdl_1", "limit": 10},
    ]
    assert server.asked[0].path == "/v1/datasets/ds_1/search"
    (tmp_path / "r.jsonl").write_text("{}")
    batch = {"id": "job_1", "status": "in_progress", "output_file_id": None}
    done = {**batch, "status": "completed", "output_file_id": "ds_9"}
    answers = [Answer(200, json.dumps(each).encode()) for each in ({"id": "ds_8"}, batch, batch, done, done)]
    with Scripted(*answers, Answer(200, b"lines")) as server:
        made = opened(server.url, "gw_key", retries=QUICK).batches.create(tmp_path / "r.jsonl", "/v1/embeddings")
        assert made.wait().download(tmp_path / "out.jsonl").read_bytes() == b"lines"
    assert b'name="purpose"\r\n\r\nbatch' in server.asked[0].body and server.asked[0].path == "/v1/files"
    sent = {"input_file_id": "ds_8", "endpoint": "/v1/embeddings", "completion_window": "24h"}
    assert json.loads(server.asked[1].body) == sent and server.asked[-1].path == "/v1/files/ds_9/content"


def test_a_missing_export_is_made_and_then_fetched(opened: Opened, tmp_path: Path) -> None:
    job = b'{"id": "job_1", "type": "export", "status": "succeeded"}'
    refused = Answer(409, envelope("not_exported"), {"x-should-retry": "false"})
    with Scripted(refused, Answer(201, job), Answer(200, job), Answer(200, b"zip")) as server:
        gw = opened(server.url, "gw_key", retries=QUICK)
        assert gw.models.download("mdl_1", tmp_path / "m.zip", format="onnx").read_bytes() == b"zip"
    assert json.loads(server.asked[1].body) == {"type": "export", "model": "mdl_1", "format": "onnx"}
    assert [each.path for each in server.asked][0::3] == ["/v1/models/mdl_1/download?format=onnx"] * 2
