"""A file on its way in: bad forms, quotas, broken connections, flat memory (R16, R18, B12, B38, F25, M10)."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import Request
from sqlalchemy import func, select

from app.datasets import intake, quota
from app.datasets.tables import StorageAccount, StorageHold
from app.errors import ApiError
from app.platform import Platform, session_scope
from app.settings import Settings
from tests.app.conftest import Api, LiveApi, make_settings, serve
from tests.app.test_datasets_multipart import form, part

HEADERS = {"Content-Type": "multipart/form-data; boundary=XyZ"}
LIMIT = 4000


@pytest.fixture
def small(sqlite_url: str, tmp_path: Path) -> Iterator[Api]:
    """An application whose limits are in reach."""
    limits = {"storage_quota_bytes": LIMIT, "max_upload_bytes": 3000, "max_datasets": 2}
    yield from serve(make_settings(sqlite_url, tmp_path, **limits))


def nothing_was_kept(api: Api) -> None:
    assert api.client.get("/v1/datasets").json()["data"] == []
    assert list(api.platform.store.list("datasets")) == []
    with session_scope(api.platform) as session:
        assert session.scalar(select(func.count()).select_from(StorageHold)) == 0
        assert session.scalar(select(func.coalesce(func.sum(StorageAccount.used_bytes), 0))) == 0


FILE = part("file", b"some text\n", "a.txt")


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "malformed_multipart", None),
        (b"not a form", 400, "malformed_multipart", None),
        (form(*[part(f"f{n}", b"") for n in range(10_000)]), 400, "too_many_parts", None),
        (form(FILE)[:-8], 400, "malformed_multipart", None),
        (form(part("name", b"x")), 422, "missing_field", "file"),
        (form(FILE, FILE), 422, "duplicate_field", "file"),
        (form(part("name", b"a"), part("name", b"b"), FILE), 422, "duplicate_field", "name"),
        (form(FILE, part("color", b"red")), 422, "unknown_field", "color"),
        (form(part("project_id", b"prj_x"), FILE), 422, "unknown_field", "project_id"),
        (form(part("modality", b"smell"), FILE), 422, "invalid_value", "modality"),
        (form(FILE, part("modality", b"smell")), 422, "invalid_value", "modality"),
        (form(part("name", b""), FILE), 422, "out_of_range", "name"),
        (form(part("name", b"x" * 256), FILE), 422, "out_of_range", "name"),
        (form(part("name", b"x" * 70_000), FILE), 413, "too_large", "name"),
        (form(part("name", b"\xff"), FILE), 422, "encoding_error", "name"),
        (form(part("name", b"a\0b"), FILE), 422, "invalid_character", "name"),
        (form(part("columns", b"{"), FILE), 422, "malformed_json", "columns"),
        (form(part("columns", b'["text"]'), FILE), 422, "type_error", "columns"),
        (form(part("columns", b'{"colour": "c"}'), FILE), 422, "invalid_value", "columns.colour"),
        (form(part("columns", b'{"text": 7}'), FILE), 422, "type_error", "columns.text"),
        (form(part("columns", b'{"text": "a", "text": "b"}'), FILE), 422, "duplicate_key", "columns.text"),
        (form(part("metadata", b'{"a": NaN}'), FILE), 422, "not_finite", "metadata.a"),
        (form(part("metadata", b'{"a": "' + b"x" * 513 + b'"}'), FILE), 422, "out_of_range", "metadata.a"),
        (form(part("metadata", b"[" * 60_000), FILE), 422, "malformed_json", "metadata"),
        (form(part("metadata", b'{"a": "\\ud800"}'), FILE), 422, "invalid_character", "metadata.a"),
        (form(part("file", b"", "a.txt")), 422, "empty", "file"),
        (form(part("file", b"plain field")), 422, "filename_missing", "file"),
    ],
)  # fmt: skip
def test_a_bad_form_names_its_fault_and_leaves_nothing(
    api: Api, body: bytes, status: int, code: str, param: str | None
) -> None:
    reply = api.client.post("/v1/datasets", content=body, headers=HEADERS)
    found = reply.json()["error"]
    assert (reply.status_code, found["code"], found["param"]) == (status, code, param), found["message"]
    nothing_was_kept(api)


@pytest.mark.parametrize(
    ("content_type", "status", "code"),
    [
        ("application/json", 415, "unsupported_media_type"),
        ("multipart/form-data", 400, "malformed_multipart"),
        ("multipart/form-data; boundary=" + "b" * 1000, 400, "malformed_multipart"),
    ],
)
def test_a_body_that_is_no_form_is_refused(api: Api, content_type: str, status: int, code: str) -> None:
    reply = api.client.post("/v1/datasets", content=form(FILE), headers={"Content-Type": content_type})
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    nothing_was_kept(api)


def test_a_compressed_body_is_refused(api: Api) -> None:
    headers = {**HEADERS, "Content-Encoding": "gzip"}
    assert api.client.post("/v1/datasets", content=form(FILE), headers=headers).status_code == 415


def test_an_unknown_modality_is_answered_with_the_known_ones(api: Api) -> None:
    reply = api.client.post("/v1/datasets", content=form(part("modality", b"smell"), FILE), headers=HEADERS)
    assert "text" in reply.json()["error"]["message"] and "image" in reply.json()["error"]["message"]


def test_fields_after_the_file_count_as_much_as_those_before(api: Api) -> None:
    body = form(part("name", b"n"), FILE, part("modality", b"text"), part("metadata", b'{"k": "v"}'))
    made = api.client.post("/v1/datasets", content=body, headers=HEADERS).json()
    assert (made["name"], made["modality"], made["metadata"]) == ("n", "text", {"k": "v"})


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"), ("C:\\data\\rows.csv", "rows.csv"), ("..", ".."), ("a/", "upload"),
        ("<b>'; DROP TABLE x;--{{7*7}}.txt", "<b>'; DROP TABLE x;--{{7*7}}.txt"),
        ("x" * 300 + ".csv", "x" * 251 + ".csv"),
    ],
)  # fmt: skip
def test_a_filename_is_kept_as_a_name_and_never_used_as_a_path(api: Api, sent: str, kept: str) -> None:
    made = api.client.post("/v1/datasets", content=form(part("file", b"x", sent)), headers=HEADERS).json()
    assert made["filename"] == kept
    assert [key for key, _ in api.platform.store.list("datasets")] == [f"datasets/{made['id']}/upload"]


def test_a_file_over_the_cap_is_refused_by_its_declared_length(small: Api) -> None:
    small_slack = intake.SLACK + 3001
    headers = {**HEADERS, "Content-Length": str(small_slack + 1)}
    reply = small.client.post("/v1/datasets", content=iter([b"never sent in full"]), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    nothing_was_kept(small)


def test_a_file_over_the_cap_is_refused_while_it_arrives(small: Api) -> None:
    reply = small.client.post("/v1/datasets", content=form(part("file", b"x" * 3001, "a")), headers=HEADERS)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    nothing_was_kept(small)


def test_a_declared_terabyte_is_refused_before_its_bytes(api: Api) -> None:
    headers = {**HEADERS, "Content-Length": str(10**12)}
    reply = api.client.post("/v1/datasets", content=iter([b""]), headers=headers)
    assert reply.status_code == 413 and reply.headers["connection"] == "close"
    nothing_was_kept(api)


def test_a_file_over_the_quota_is_refused_and_one_that_fits_is_not(small: Api) -> None:
    body = form(part("file", b"x" * 2500, "a"))
    assert small.client.post("/v1/datasets", content=body, headers=HEADERS).status_code == 201
    reply = small.client.post("/v1/datasets", content=body, headers=HEADERS)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "quota_exceeded")
    fits = form(part("file", b"x" * 1000, "a"))
    assert small.client.post("/v1/datasets", content=fits, headers=HEADERS).status_code == 201


def test_one_projects_quota_is_not_anothers(small: Api) -> None:
    body = form(part("file", b"x" * 2500, "a"))
    assert small.client.post("/v1/datasets", content=body, headers=HEADERS).status_code == 201
    assert small.stranger.post("/v1/datasets", content=body, headers=HEADERS).status_code == 201


def test_a_project_may_keep_only_so_many_datasets(small: Api) -> None:
    replies = [small.client.post("/v1/datasets", content=form(FILE), headers=HEADERS) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [201, 201, 403]
    assert replies[2].json()["error"]["code"] == "quota_exceeded"
    oldest = replies[0].json()["id"]
    assert small.client.delete(f"/v1/datasets/{oldest}").status_code == 200
    assert small.client.post("/v1/datasets", content=form(FILE), headers=HEADERS).status_code == 201


def test_racing_promises_never_come_to_more_than_the_quota(everywhere: Platform) -> None:
    settings = everywhere.settings.model_copy(update={"storage_quota_bytes": 100})
    together = threading.Barrier(8)

    def ask(_: int) -> bool:
        together.wait()
        try:
            with session_scope(everywhere) as session:
                quota.hold(session, settings, "prj_racing", 30)
            return True
        except ApiError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 3


def test_a_hold_can_grow_within_the_quota_and_lapses_when_its_process_died(
    everywhere: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = everywhere.settings.model_copy(update={"storage_quota_bytes": 100})

    def ask(size: int) -> str:
        with session_scope(everywhere) as session:
            return quota.hold(session, settings, "prj_x", size)

    monkeypatch.setattr(quota, "HOLD_MS", 300)
    first = ask(60)
    with session_scope(everywhere) as session:
        quota.extend(session, settings, first, 90)
    with pytest.raises(ApiError):
        ask(20)
    time.sleep(0.35)
    assert ask(20)


def test_a_sender_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "STALL_SECONDS", 0.1)

    async def silence() -> Any:
        await asyncio.sleep(60)

    async def read() -> list[bytes]:
        return [block async for block in intake._blocks(Request({"type": "http", "headers": []}, silence))]

    with pytest.raises(ApiError) as caught:
        asyncio.run(read())
    assert caught.value.code == "upload_stalled"


def test_a_refused_terabyte_is_answered_at_once_and_the_connection_closed(live_api: LiveApi) -> None:
    with raw_upload(live_api, b"--XyZ\r\n", 10**12) as connection:
        connection.settimeout(10)
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert reply.startswith(b"HTTP/1.1 413") and b'"too_large"' in reply


def raw_upload(live: LiveApi, body: bytes, length: int) -> socket.socket:
    head = (
        f"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {live.key}\r\n"
        f"Content-Type: {HEADERS['Content-Type']}\r\nContent-Length: {length}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", live.port))
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("sent", [0, 30, 3_000_000, -1])
def test_a_broken_off_upload_leaves_nothing(live_api: LiveApi, sent: int) -> None:
    body = form(part("file", b"x" * 4_000_000, "a.txt"))
    connection = raw_upload(live_api, body[:sent], len(body))
    time.sleep(0.3)
    connection.close()
    store = live_api.settings.data_dir / "store"
    _until(lambda: not _holds(live_api.settings))
    assert live_api.client.get("/v1/datasets").json()["data"] == []
    assert [path for path in store.rglob("*") if path.is_file()] == []


def _holds(settings: Settings) -> int:
    platform = Platform.open(settings)
    with session_scope(platform) as session:
        count = session.scalar(select(func.count()).select_from(StorageHold)) or 0
    platform.close()
    return count


def _until(true: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_chunked_upload_needs_no_declared_length(live_api: LiveApi) -> None:
    body = form(part("file", b"y" * 3_000_000, "a.txt"))
    pieces = (body[at : at + 70_000] for at in range(0, len(body), 70_000))
    reply = live_api.client.post("/v1/datasets", content=pieces, headers=HEADERS)
    assert reply.status_code == 201 and reply.json()["bytes"] == 3_000_000


def test_a_large_upload_costs_little_memory_and_others_are_served_meanwhile(live_api: LiveApi) -> None:
    block, blocks = b"z" * (1 << 20), 200
    head, tail = form(part("file", b"|", "big.txt")).split(b"|")
    body = (each for each in (head, *(block for _ in range(blocks)), tail))
    length = len(head) + len(block) * blocks + len(tail)
    status = Path(f"/proc/{live_api.process.pid}/status")
    seen: list[int] = []
    slow: list[float] = []
    done = threading.Event()

    def watch() -> None:
        with httpx2.Client(base_url=live_api.url, headers=live_api.client.headers) as client:
            while not done.is_set():
                began = time.monotonic()
                assert client.get("/v1/datasets").status_code == 200
                slow.append(time.monotonic() - began)
                seen.append(int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0]) // 1024)
                time.sleep(0.02)

    small = live_api.client.post("/v1/datasets", content=form(FILE), headers=HEADERS)
    assert small.status_code == 201
    before = int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0]) // 1024
    watcher = threading.Thread(target=watch)
    watcher.start()
    reply = live_api.client.post("/v1/datasets", content=body, headers={**HEADERS, "Content-Length": str(length)})
    done.set()
    watcher.join()
    assert reply.status_code == 201 and reply.json()["bytes"] == len(block) * blocks
    assert len(seen) > 5 and max(seen) - before < 50, f"grew from {before} to {max(seen)} MB"
    assert sorted(slow)[len(slow) // 2] < 0.2
