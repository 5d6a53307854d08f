"""Stored bytes as attachments: resumable, verifiable, never run as a page."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response
from starlette.testclient import TestClient

from app import failures
from app.downloads import Download, disposition, file_response
from app.storage import Store

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"{SHA256}"'


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    store = Store.open(f"file://{tmp_path}")
    store.put("files/one", CONTENT)
    app = FastAPI()
    failures.install(app)

    @app.get("/one")
    def one(request: Request) -> Response:
        return file_response(request, store, Download("files/one", len(CONTENT), SHA256, "one.bin"))

    @app.get("/lost")
    def lost(request: Request) -> Response:
        return file_response(request, store, Download("files/lost", 10, SHA256, "lost.bin"))

    return TestClient(app, raise_server_exceptions=False)


def test_a_whole_file_comes_with_its_digest_and_as_an_attachment(client: TestClient) -> None:
    reply = client.get("/one")
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()}:"
    assert reply.status_code == 200 and reply.content == CONTENT
    assert reply.headers["etag"] == ETAG and reply.headers["content-length"] == str(len(CONTENT))
    assert reply.headers["content-digest"] == reply.headers["repr-digest"] == digest
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert reply.headers["content-disposition"].startswith('attachment; filename="one.bin"')


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=10000-", 10000, len(CONTENT)),
        ("bytes=-100", len(CONTENT) - 100, len(CONTENT)),
        ("bytes=-999999", 0, len(CONTENT)),
        ("bytes=5-999999", 5, len(CONTENT)),
    ],
)
def test_one_range_gives_exactly_those_bytes(client: TestClient, asked: str, start: int, end: int) -> None:
    reply = client.get("/one", headers={"Range": asked})
    assert reply.status_code == 206 and reply.content == CONTENT[start:end]
    assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"
    assert "content-digest" not in reply.headers


@pytest.mark.parametrize("asked", ["bytes=10240-", "bytes=5-2", "bytes=-0", "bytes=-", "bytes=0-1,3-4"])
def test_a_range_outside_the_file_or_several_ranges_are_416(client: TestClient, asked: str) -> None:
    reply = client.get("/one", headers={"Range": asked})
    assert reply.status_code == 416 and reply.json()["error"]["code"] == "invalid_range"
    assert reply.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["rows=0-5", "bytes", "bytes=a-b"])
def test_what_is_no_byte_range_is_ignored(client: TestClient, asked: str) -> None:
    assert client.get("/one", headers={"Range": asked}).status_code == 200


def test_if_range_with_the_current_tag_resumes_and_with_another_starts_over(client: TestClient) -> None:
    assert client.get("/one", headers={"Range": "bytes=5-", "If-Range": ETAG}).status_code == 206
    for other in ('"0000"', f"W/{ETAG}", "Sun, 22 Nov 2026 19:00:00 GMT"):
        reply = client.get("/one", headers={"Range": "bytes=5-", "If-Range": other})
        assert reply.status_code == 200 and reply.content == CONTENT


@pytest.mark.parametrize("sent", [ETAG, f"W/{ETAG}", f'"x", {ETAG}', "*"])
def test_if_none_match_with_the_current_tag_is_304_without_a_body(client: TestClient, sent: str) -> None:
    reply = client.get("/one", headers={"If-None-Match": sent})
    assert reply.status_code == 304 and reply.content == b"" and reply.headers["etag"] == ETAG


def test_if_match_with_another_tag_is_412(client: TestClient) -> None:
    assert client.get("/one", headers={"If-Match": '"other"'}).status_code == 412
    assert client.get("/one", headers={"If-Match": ETAG}).status_code == 200


def test_lost_bytes_are_told_before_the_reply_begins(client: TestClient) -> None:
    reply = client.get("/lost")
    assert reply.status_code == 503 and reply.json()["error"]["code"] == "storage_unavailable"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"),
        ('a"b.txt', "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
        ("a\r\nX: y", "attachment; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y"),
        ("größe.csv", "attachment; filename=\"gr__e.csv\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.csv"),
        ("../x;y", "attachment; filename=\".._x_y\"; filename*=UTF-8''..%2Fx%3By"),
    ],
)
def test_any_name_is_sent_without_splitting_the_header(name: str, expected: str) -> None:
    assert disposition(name) == expected
