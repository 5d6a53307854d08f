"""Uploads in parts: resumable, checked, completed once (R16, F25, F27, B36–B39)."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import select, update

from app.datasets import assembly, expiry, uploads
from app.datasets.file_schemas import UploadComplete
from app.datasets.tables import Dataset, StorageAccount, Upload, UploadPart
from app.platform import session_scope
from tests.app.conftest import Api, LiveApi, make_settings, serve
from tests.app.test_datasets_multipart import form, part

PARTS = [b"first part, " * 50, b"second part, " * 70, b"third"]
WHOLE = b"".join(PARTS)
SHA256 = hashlib.sha256(WHOLE).hexdigest()


def create(api: Api, size: int = len(WHOLE), **fields: Any) -> dict[str, Any]:
    body = {"filename": "rows.txt", "bytes": size, "mime_type": "text/plain", "purpose": "pretrain", **fields}
    reply = api.client.post("/v1/uploads", json=body)
    assert reply.status_code == 200, reply.text
    made: dict[str, Any] = reply.json()
    return made


def send(api: Api, upload_id: str, content: bytes, **fields: str) -> Any:
    return api.client.post(f"/v1/uploads/{upload_id}/parts", files={"data": ("blob", content)}, data=fields)


def send_all(api: Api, upload_id: str) -> list[str]:
    return [send(api, upload_id, content).json()["id"] for content in PARTS]


def complete(api: Api, upload_id: str, part_ids: list[str], **digests: str) -> Any:
    return api.client.post(f"/v1/uploads/{upload_id}/complete", json={"part_ids": part_ids, **digests})


def refused(reply: Any) -> tuple[int, str, str | None]:
    found = reply.json()["error"]
    return reply.status_code, found["code"], found["param"]


def stored(api: Api, prefix: str) -> list[str]:
    return [key for key, _ in api.platform.store.list(prefix)]


def used(api: Api) -> int:
    with session_scope(api.platform) as session:
        return session.scalar(select(StorageAccount.used_bytes).where(StorageAccount.project_id == api.project_id)) or 0


def freed(api: Api) -> None:
    """The server's own sweep may be at it at the same moment, and bytes go after the rows."""
    end = time.monotonic() + 10
    while (used(api) or stored(api, "uploads")) and time.monotonic() < end:
        time.sleep(0.05)
    assert used(api) == 0 and stored(api, "uploads") == []


def expire(api: Api, upload_id: str) -> None:
    with session_scope(api.platform) as session:
        session.execute(update(Upload).where(Upload.id == upload_id).values(expires_ms=1))


def test_parts_become_one_dataset(api_everywhere: Api) -> None:
    made = create(api_everywhere, sha256=SHA256, modality="text", metadata={"k": "v"})
    done = complete(api_everywhere, made["id"], send_all(api_everywhere, made["id"])).json()
    assert done["status"] == "completed" and done["file"]["bytes"] == len(WHOLE)
    dataset = api_everywhere.client.get(f"/v1/datasets/{done['file']['id']}").json()
    assert (dataset["sha256"], dataset["modality"], dataset["metadata"]) == (SHA256, "text", {"k": "v"})
    assert api_everywhere.client.get(f"/v1/datasets/{dataset['id']}/content").content == WHOLE
    assert stored(api_everywhere, "uploads") == [] and used(api_everywhere) == len(WHOLE)


def test_parts_may_come_in_any_order_and_all_at_once(live_api: LiveApi) -> None:
    client = live_api.client
    body = {"filename": "r.txt", "bytes": 40_000, "mime_type": "text/plain", "purpose": "pretrain"}
    upload = client.post("/v1/uploads", json=body).json()["id"]
    pieces = [bytes([65 + n]) * 5_000 for n in range(8)]

    def one(content: bytes) -> str:
        reply = client.post(f"/v1/uploads/{upload}/parts", files={"data": ("p", content)})
        assert reply.status_code == 200, reply.text
        part_id: str = reply.json()["id"]
        return part_id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(one, reversed(pieces)))[::-1]
    done = client.post(f"/v1/uploads/{upload}/complete", json={"part_ids": ids}).json()
    assert client.get(f"/v1/files/{done['file']['id']}/content").content == b"".join(pieces)


def test_the_official_client_uploads_a_file_in_chunks(live_api: LiveApi, tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    path.write_bytes(b'{"text": "x"}\n' * 50_000)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    with openai.OpenAI(base_url=f"{live_api.url}/v1", api_key=live_api.key, max_retries=0) as client:
        done = client.uploads.upload_file_chunked(
            file=path, mime_type="application/jsonl", purpose="fine-tune", part_size=200_000, md5=md5
        )
        assert done.status == "completed" and done.file is not None
        assert client.files.content(done.file.id).read() == path.read_bytes()
        other = client.uploads.create(bytes=5, filename="a", mime_type="text/plain", purpose="batch")
        assert client.uploads.cancel(other.id).status == "cancelled"


def test_what_is_durable_is_listed_so_that_a_client_can_go_on(api_everywhere: Api) -> None:
    made = create(api_everywhere)
    first = send(api_everywhere, made["id"], PARTS[0]).json()
    shown = api_everywhere.client.get(f"/v1/uploads/{made['id']}").json()
    assert shown["status"] == "pending" and shown["received_bytes"] == len(PARTS[0])
    assert shown["parts"] == [first]
    assert (first["object"], first["bytes"]) == ("upload.part", len(PARTS[0]))
    assert first["sha256"] == hashlib.sha256(PARTS[0]).hexdigest()


def test_the_same_part_twice_is_kept_once(api_everywhere: Api) -> None:
    made = create(api_everywhere)
    first, again = (send(api_everywhere, made["id"], PARTS[0]).json() for _ in range(2))
    assert first == again and len(stored(api_everywhere, "uploads")) == 1


def test_a_file_of_equal_parts_names_the_one_part_twice(api: Api) -> None:
    made = create(api, size=20)
    only = send(api, made["id"], b"0123456789").json()["id"]
    done = complete(api, made["id"], [only, only]).json()
    assert api.client.get(f"/v1/files/{done['file']['id']}/content").content == b"0123456789" * 2


def test_a_part_beyond_the_declared_bytes_is_refused(api_everywhere: Api) -> None:
    made = create(api_everywhere, size=10)
    assert refused(send(api_everywhere, made["id"], b"x" * 11)) == (413, "too_large", None)
    send(api_everywhere, made["id"], b"12345678")
    assert refused(send(api_everywhere, made["id"], b"abc")) == (413, "too_large", "data")
    assert len(stored(api_everywhere, "uploads")) == 1


def test_racing_parts_never_come_to_more_than_was_declared(live_api: LiveApi) -> None:
    body = {"filename": "r.txt", "bytes": 30_000, "mime_type": "text/plain", "purpose": "pretrain"}
    upload = live_api.client.post("/v1/uploads", json=body).json()["id"]

    def one(n: int) -> int:
        url = f"/v1/uploads/{upload}/parts"
        return live_api.client.post(url, files={"data": ("p", bytes([65 + n]) * 10_000)}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(one, range(8))) == [200] * 3 + [413] * 5
    assert live_api.client.get(f"/v1/uploads/{upload}").json()["received_bytes"] == 30_000


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (form(part("data", b"", "p")), 422, "empty", "data"),
        (form(part("file", b"x", "p")), 422, "unknown_field", "file"),
        (form(part("sha256", b"0" * 64)), 422, "missing_field", "data"),
        (form(part("data", b"x", "p"), part("data", b"y", "p")), 422, "duplicate_field", "data"),
        (form(part("data", b"x", "p"), part("sha256", b"0" * 64)), 400, "digest_mismatch", "sha256"),
        (form(part("data", b"x", "p"))[:-4], 400, "malformed_multipart", None),
    ],
)
def test_a_bad_part_leaves_nothing(api: Api, body: bytes, status: int, code: str, param: str | None) -> None:
    made, headers = create(api), {"Content-Type": "multipart/form-data; boundary=XyZ"}
    reply = api.client.post(f"/v1/uploads/{made['id']}/parts", content=body, headers=headers)
    assert refused(reply) == (status, code, param)
    assert stored(api, "uploads") == []
    assert api.client.get(f"/v1/uploads/{made['id']}").json()["parts"] == []


def test_a_part_that_is_no_form_is_415(api: Api) -> None:
    url = f"/v1/uploads/{create(api)['id']}/parts"
    assert api.client.post(url, content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415


def test_a_part_with_its_right_digest_is_taken(api: Api) -> None:
    made = create(api)
    assert send(api, made["id"], PARTS[0], sha256=hashlib.sha256(PARTS[0]).hexdigest()).status_code == 200


def test_more_parts_than_allowed_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_PARTS", 2)
    made = create(api)
    replies = [send(api, made["id"], content) for content in PARTS]
    assert [reply.status_code for reply in replies] == [200, 200, 422]
    assert refused(replies[2])[1] == "too_many_parts"


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"bytes": 0}, 422, "empty", "bytes"),
        ({"bytes": -1}, 422, "out_of_range", "bytes"),
        ({"bytes": 10**12}, 413, "too_large", "bytes"),
        ({"bytes": True}, 422, "type_error", "bytes"),
        ({"bytes": 10**30}, 422, "out_of_range", "bytes"),
        ({"purpose": "assistants"}, 422, "invalid_value", "purpose"),
        ({"filename": ""}, 422, "out_of_range", "filename"),
        ({"filename": "a\0b"}, 422, "invalid_character", "filename"),
        ({"sha256": "abc"}, 422, "invalid_format", "sha256"),
        ({"modality": "smell"}, 422, "invalid_value", "modality"),
        ({"status": "completed"}, 422, "unknown_field", "status"),
    ],
)
def test_a_bad_declaration_names_its_field(
    api: Api, fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    body = {"filename": "a", "bytes": 5, "mime_type": "text/plain", "purpose": "pretrain", **fields}
    assert refused(api.client.post("/v1/uploads", json=body)) == (status, code, param)
    assert used(api) == 0


def test_an_upload_over_the_quota_is_refused_before_its_bytes(sqlite_url: str, tmp_path: Path) -> None:
    for api in serve(make_settings(sqlite_url, tmp_path, storage_quota_bytes=100)):
        first = create(api, size=70)
        body = {"filename": "a", "bytes": 31, "mime_type": "text/plain", "purpose": "pretrain"}
        assert refused(api.client.post("/v1/uploads", json=body))[:2] == (413, "quota_exceeded")
        api.client.post(f"/v1/uploads/{first['id']}/cancel")
        assert api.client.post("/v1/uploads", json=body).status_code == 200


def test_missing_parts_are_told_and_the_upload_stays_open(api_everywhere: Api) -> None:
    made = create(api_everywhere)
    ids = send_all(api_everywhere, made["id"])
    for some in ([], ids[:2], [*ids, ids[0]]):
        assert refused(complete(api_everywhere, made["id"], some)) == (400, "parts_missing", "part_ids")
    assert complete(api_everywhere, made["id"], ids).json()["status"] == "completed"


def test_unknown_and_foreign_part_ids_are_404(api_everywhere: Api) -> None:
    made, other = create(api_everywhere), create(api_everywhere)
    ids = send_all(api_everywhere, made["id"])
    foreign = send(api_everywhere, other["id"], PARTS[0]).json()["id"]
    for strange in ("part_unknown", foreign, ""):
        assert refused(complete(api_everywhere, made["id"], [*ids[:2], strange])) == (404, "not_found", "part_ids.2")


@pytest.mark.parametrize(
    ("declared", "sent", "param"),
    [({"sha256": "0" * 64}, {}, "sha256"), ({}, {"sha256": "0" * 64}, "sha256"), ({}, {"md5": "0" * 32}, "md5")],
)
def test_a_wrong_digest_is_refused_and_keeps_the_parts(
    api: Api, declared: dict[str, str], sent: dict[str, str], param: str
) -> None:
    made = create(api, **declared)
    ids = send_all(api, made["id"])
    assert refused(complete(api, made["id"], ids, **sent)) == (400, "digest_mismatch", param)
    assert stored(api, "datasets") == [] and len(stored(api, "uploads")) == 3
    assert api.client.get("/v1/files").json()["data"] == []


def test_completing_twice_gives_the_same_reply_and_one_dataset(api_everywhere: Api) -> None:
    made = create(api_everywhere)
    ids = send_all(api_everywhere, made["id"])
    first, again = (complete(api_everywhere, made["id"], ids) for _ in range(2))
    assert first.status_code == again.status_code == 200 and first.json() == again.json()
    assert len(api_everywhere.client.get("/v1/files").json()["data"]) == 1
    assert refused(complete(api_everywhere, made["id"], ids[::-1]))[:2] == (409, "invalid_state")


def test_completing_twice_at_once_makes_one_dataset(api_everywhere: Api) -> None:
    made = create(api_everywhere)
    body = UploadComplete(part_ids=send_all(api_everywhere, made["id"]))

    async def both() -> list[Any]:
        run = (
            assembly.complete(api_everywhere.platform, api_everywhere.project_id, made["id"], body) for _ in range(4)
        )
        return await asyncio.gather(*run)

    assert len({done.file.id for done in asyncio.run(both())}) == 1
    assert len(stored(api_everywhere, "datasets")) == 1
    with session_scope(api_everywhere.platform) as session:
        assert len(session.scalars(select(Dataset)).all()) == 1


def test_a_completed_upload_takes_no_more_parts_and_cannot_be_cancelled(api_everywhere: Api) -> None:
    made = create(api_everywhere)
    complete(api_everywhere, made["id"], send_all(api_everywhere, made["id"]))
    assert refused(send(api_everywhere, made["id"], b"more"))[:2] == (409, "invalid_state")
    assert refused(api_everywhere.client.post(f"/v1/uploads/{made['id']}/cancel"))[:2] == (409, "invalid_state")


def test_cancelling_frees_bytes_and_room_and_may_be_repeated(api_everywhere: Api) -> None:
    made = create(api_everywhere)
    ids = send_all(api_everywhere, made["id"])
    replies = [api_everywhere.client.post(f"/v1/uploads/{made['id']}/cancel") for _ in range(2)]
    assert [reply.json()["status"] for reply in replies] == ["cancelled"] * 2
    assert stored(api_everywhere, "uploads") == [] and used(api_everywhere) == 0
    assert refused(send(api_everywhere, made["id"], b"more"))[:2] == (409, "invalid_state")
    assert refused(complete(api_everywhere, made["id"], ids))[:2] == (409, "invalid_state")


def test_an_expired_upload_is_gone_and_the_sweep_frees_it(api_everywhere: Api) -> None:
    made = create(api_everywhere)
    ids = send_all(api_everywhere, made["id"])
    expire(api_everywhere, made["id"])
    for reply in (
        send(api_everywhere, made["id"], b"more"),
        complete(api_everywhere, made["id"], ids),
        api_everywhere.client.post(f"/v1/uploads/{made['id']}/cancel"),
    ):
        assert refused(reply)[:2] == (410, "upload_expired")
    assert api_everywhere.client.get(f"/v1/uploads/{made['id']}").json()["status"] == "expired"
    expiry.sweep(api_everywhere.platform)
    freed(api_everywhere)


def test_the_server_sweeps_by_itself(api: Api) -> None:
    made = create(api)
    send(api, made["id"], PARTS[0])
    expire(api, made["id"])
    freed(api)


def test_the_sweep_leaves_open_uploads_alone(api: Api) -> None:
    made = create(api)
    send(api, made["id"], PARTS[0])
    assert expiry.sweep(api.platform) == 0
    assert len(stored(api, "uploads")) == 1 and used(api) == len(WHOLE)


def test_another_projects_upload_is_a_missing_one(api: Api) -> None:
    made = create(api)["id"]
    replies = [
        api.stranger.get(f"/v1/uploads/{made}"),
        api.stranger.post(f"/v1/uploads/{made}/cancel"),
        api.stranger.post(f"/v1/uploads/{made}/complete", json={"part_ids": []}),
        api.stranger.post(f"/v1/uploads/{made}/parts", files={"data": ("p", b"x")}),
    ]
    absent = [reply.request.url.path.replace(made, "upl_missing") for reply in replies]
    assert [reply.status_code for reply in replies] == [404] * 4
    missing = api.stranger.get(absent[0])
    assert all(reply.content.replace(made.encode(), b"upl_missing") == missing.content for reply in replies)


@pytest.fixture
def broken(live_api: LiveApi) -> Iterator[tuple[LiveApi, str]]:
    body = {"filename": "r.txt", "bytes": 2_000_000, "mime_type": "text/plain", "purpose": "pretrain", "sha256": None}
    yield live_api, live_api.client.post("/v1/uploads", json=body).json()["id"]


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 1.0])
def test_a_part_that_breaks_off_leaves_nothing_and_can_be_sent_again(broken: tuple[LiveApi, str], share: float) -> None:
    live, upload = broken
    content = hashlib.shake_256(b"seed").digest(1_000_000)
    good = live.client.post(f"/v1/uploads/{upload}/parts", files={"data": ("p", content[::-1])}).json()["id"]
    body = form(part("data", content, "p"))
    head = (
        f"POST /v1/uploads/{upload}/parts HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {live.key}\r\n"
        f"Content-Type: multipart/form-data; boundary=XyZ\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        connection.sendall(head.encode() + body[: min(int(len(body) * share), len(body) - 1)])
        time.sleep(0.2)
    assert [each["id"] for each in live.client.get(f"/v1/uploads/{upload}").json()["parts"]] == [good]
    again = live.client.post(f"/v1/uploads/{upload}/parts", files={"data": ("p", content)}).json()["id"]
    done = live.client.post(f"/v1/uploads/{upload}/complete", json={"part_ids": [good, again]}).json()
    assert live.client.get(f"/v1/files/{done['file']['id']}/content").content == content[::-1] + content


def test_a_server_killed_while_completing_leaves_an_upload_that_can_be_completed(api_everywhere: Api) -> None:
    made = create(api_everywhere)
    ids = send_all(api_everywhere, made["id"])
    # What a kill after the bytes were joined and before the row was committed leaves: an object nobody names.
    api_everywhere.platform.store.put("datasets/ds_orphan/upload", WHOLE)
    assert api_everywhere.client.get("/v1/files").json()["data"] == []
    done = complete(api_everywhere, made["id"], ids).json()
    assert api_everywhere.client.get(f"/v1/files/{done['file']['id']}/content").content == WHOLE


def test_completing_after_the_dataset_is_deleted_still_answers(api: Api) -> None:
    made = create(api)
    ids = send_all(api, made["id"])
    file_id = complete(api, made["id"], ids).json()["file"]["id"]
    assert api.client.delete(f"/v1/files/{file_id}").status_code == 200
    again = complete(api, made["id"], ids)
    assert again.status_code == 200 and again.json()["file"] is None
    with session_scope(api.platform) as session:
        assert session.scalars(select(UploadPart)).all() == []
