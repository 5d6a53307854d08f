"""`/v1/files` and `/v1/uploads` with the official client as it is, on a real server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.clients.served import Served, start_served

ROWS = b'{"text": "bread and salt", "label": "cooking"}\n'
BATCH: Any = "batch"


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from start_served(sqlite_template, tmp_path_factory.mktemp("files"), worker=False, role=False)


def test_a_file_is_made_found_read_and_deleted(served: Served, tmp_path: Path) -> None:
    client = served.openai()
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    made = client.files.create(file=tmp_path / "rows.jsonl", purpose="fine-tune")
    assert (made.object, made.bytes, made.filename, made.purpose) == ("file", len(ROWS), "rows.jsonl", "fine-tune")
    assert client.files.retrieve(made.id) == made
    reply = client.files.content(made.id)
    assert reply.read() == ROWS and reply.response.headers["etag"] == f'"{hashlib.sha256(ROWS).hexdigest()}"'
    with client.files.with_streaming_response.content(made.id) as streamed:
        streamed.stream_to_file(tmp_path / "back.jsonl")
    assert (tmp_path / "back.jsonl").read_bytes() == ROWS
    gone = client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            call(made.id)
        assert (caught.value.code, caught.value.param) == ("not_found", "id")


def test_files_page_by_themselves_in_both_orders(served: Served) -> None:
    client = served.openai()
    made = [client.files.create(file=(f"{at}.jsonl", ROWS), purpose="fine-tune").id for at in range(5)]
    listed = [file.id for file in client.files.list(limit=2)]
    assert listed[:5] == made[::-1] and len(set(listed)) == len(listed)
    assert [file.id for file in client.files.list(limit=2, order="asc")] == listed[::-1]
    page = client.files.list(limit=2)
    assert page.has_next_page() and [file.id for file in page.get_next_page().data] == listed[2:4]
    assert [file.id for file in client.files.list(after=made[1], limit=1).data] == [made[0]]
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.list(after="ds_nothing")
    assert caught.value.code == "invalid_cursor"
    for limit in (0, 101):
        with pytest.raises(openai.UnprocessableEntityError) as wrong:
            client.files.list(limit=limit)
        assert (wrong.value.code, wrong.value.param) == ("invalid_limit", "limit")


def test_a_file_of_requests_is_kept_as_it_is_and_no_dataset(served: Served) -> None:
    client = served.openai()
    made = client.files.create(file=("requests.jsonl", b"anything at all"), purpose="batch")
    assert (made.purpose, made.status) == ("batch", "processed")
    assert client.files.content(made.id).read() == b"anything at all"
    assert [file.id for file in client.files.list(purpose="batch")] == [made.id]
    with pytest.raises(openai.NotFoundError):
        client.get(f"/datasets/{made.id}", cast_to=object)
    datasets: Any = client.get("/datasets", cast_to=object)
    assert made.id not in [each["id"] for each in datasets["data"]]
    ingests: Any = client.get("/jobs?type=ingest&limit=100", cast_to=object)
    assert made.id not in [each["spec"]["dataset"] for each in ingests["data"]]
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.fine_tuning.jobs.create(model="auto", training_file=made.id)
    assert (caught.value.code, caught.value.param) == ("not_found", "training_file")
    assert client.files.delete(made.id).deleted


def test_a_wrong_purpose_and_an_empty_file_are_named(served: Served) -> None:
    client = served.openai()
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.files.create(file=("a.jsonl", ROWS), purpose="assistants")
    assert (caught.value.code, caught.value.param) == ("invalid_value", "purpose")
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.files.create(file=("a.jsonl", b""), purpose="batch")
    assert (caught.value.code, caught.value.param) == ("empty", "file")
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.files.create(
            file=("a.jsonl", ROWS), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
    assert caught.value.code == "unknown_field" and str(caught.value.param).startswith("expires_after")


def test_the_asynchronous_client_does_the_same(served: Served) -> None:
    async def walk() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client:
            made = [(await client.files.create(file=("a.txt", ROWS), purpose="batch")).id for _ in range(3)]
            assert (await client.files.content(made[0])).read() == ROWS
            listed = [file.id async for file in client.files.list(purpose="batch", limit=2)]
            assert listed == made[::-1]
            upload = await client.uploads.upload_file_chunked(
                file=ROWS, filename="a.txt", bytes=len(ROWS), mime_type="text/plain", purpose="batch", part_size=20
            )
            assert upload.file is not None and (await client.files.content(upload.file.id)).read() == ROWS
            return [*made, upload.file.id]

    made = asyncio.run(walk())
    for each in made:
        served.openai().files.delete(each)


def test_a_file_in_chunks_is_one_file(served: Served, tmp_path: Path) -> None:
    client = served.openai()
    whole = ROWS * 5000
    (tmp_path / "large.jsonl").write_bytes(whole)
    done = client.uploads.upload_file_chunked(
        file=tmp_path / "large.jsonl", mime_type="application/jsonl", purpose="fine-tune", part_size=50_000,
        md5=hashlib.md5(whole).hexdigest(),
    )  # fmt: skip
    assert (done.object, done.status, done.bytes, done.filename) == ("upload", "completed", len(whole), "large.jsonl")
    assert done.file is not None and (done.file.bytes, done.file.purpose) == (len(whole), "fine-tune")
    assert client.files.content(done.file.id).read() == whole


def test_an_upload_goes_on_after_a_lost_part(served: Served) -> None:
    client = served.openai()
    parts = [b"first, " * 100, b"second, " * 100, b"third"]
    whole = b"".join(parts)
    begun = client.uploads.create(
        bytes=len(whole), filename="rows.txt", mime_type="text/plain", purpose="fine-tune",
        extra_body={"sha256": hashlib.sha256(whole).hexdigest()},
    )  # fmt: skip
    assert begun.status == "pending" and begun.expires_at > begun.created_at
    first = client.uploads.parts.create(begun.id, data=parts[0])
    assert (first.object, first.upload_id) == ("upload.part", begun.id)
    # Here the program dies. The next one asks what has arrived, and sends the rest.
    known: Any = client.get(f"/uploads/{begun.id}", cast_to=object)
    arrived = {each["sha256"]: each["id"] for each in known["parts"]}
    assert known["received_bytes"] == len(parts[0])
    ids = [
        arrived.get(hashlib.sha256(part).hexdigest()) or client.uploads.parts.create(begun.id, data=part).id
        for part in parts
    ]
    assert ids[0] == first.id
    with pytest.raises(openai.BadRequestError) as caught:
        client.uploads.complete(begun.id, part_ids=ids[:2])
    assert caught.value.code == "parts_missing"
    with pytest.raises(openai.BadRequestError) as caught:
        client.uploads.complete(begun.id, part_ids=ids, md5="0" * 32)
    assert (caught.value.code, caught.value.param) == ("digest_mismatch", "md5")
    with pytest.raises(openai.BadRequestError) as caught:
        client.uploads.complete(begun.id, part_ids=[ids[1], ids[0], ids[2]])
    assert (caught.value.code, caught.value.param) == ("digest_mismatch", "sha256")
    done = client.uploads.complete(begun.id, part_ids=ids, md5=hashlib.md5(whole).hexdigest())
    assert done.file is not None and client.files.content(done.file.id).read() == whole
    again = client.uploads.complete(begun.id, part_ids=ids)
    assert again.file is not None and again.file.id == done.file.id


def test_an_upload_is_cancelled_and_refuses_what_comes_after(served: Served) -> None:
    client = served.openai()
    begun = client.uploads.create(bytes=5, filename="a.txt", mime_type="text/plain", purpose="batch")
    client.uploads.parts.create(begun.id, data=b"hel")
    with pytest.raises(openai.APIStatusError) as caught:
        client.uploads.parts.create(begun.id, data=b"too much")
    assert (caught.value.status_code, caught.value.code) == (413, "too_large")
    assert client.uploads.cancel(begun.id).status == "cancelled"
    assert client.uploads.cancel(begun.id).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        client.uploads.parts.create(begun.id, data=b"lo")
    with pytest.raises(openai.ConflictError):
        client.uploads.complete(begun.id, part_ids=[])
    with pytest.raises(openai.NotFoundError):
        served.openai(served.stranger_key).uploads.cancel(begun.id)


def test_a_file_of_requests_has_a_limit_told_before_its_bytes(served: Served) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        served.openai().uploads.create(bytes=200_000_001, filename="r.jsonl", mime_type="text/plain", purpose="batch")
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (413, "too_large", "bytes")
