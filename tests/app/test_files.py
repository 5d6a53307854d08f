"""The files door, with the official client over a real socket where it can be, and the API's own rules beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from app.datasets import service
from app.platform import session_scope
from tests.app.conftest import Api, LiveApi
from tests.app.test_datasets import PROFILE, ingest

CONTENT = b'{"text": "hello", "label": "greeting"}\n'


@pytest.fixture
def client(live_api: LiveApi) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_api.url}/v1", api_key=live_api.key, max_retries=0) as client:
        yield client


def create(api: Api, purpose: str = "fine-tune", content: bytes = CONTENT) -> dict[str, Any]:
    reply = api.client.post("/v1/files", files={"file": ("rows.jsonl", content)}, data={"purpose": purpose})
    assert reply.status_code == 200, reply.text
    made: dict[str, Any] = reply.json()
    return made


def test_the_official_client_walks_a_file_through_its_life(client: openai.OpenAI, live_api: LiveApi) -> None:
    made = client.files.create(file=("rows.jsonl", CONTENT), purpose="fine-tune")
    assert (made.object, made.bytes, made.filename, made.purpose) == ("file", len(CONTENT), "rows.jsonl", "fine-tune")
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == CONTENT
    assert live_api.client.get(f"/v1/datasets/{made.id}").json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    gone = client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.retrieve(made.id)
    assert (caught.value.code, caught.value.param) == ("not_found", "id")


def test_the_official_client_pages_through_files_by_purpose(client: openai.OpenAI) -> None:
    made = [client.files.create(file=("a.jsonl", CONTENT), purpose=p).id for p in ("fine-tune", "batch", "fine-tune")]
    assert [file.id for file in client.files.list(limit=1)] == made[::-1]
    assert [file.id for file in client.files.list(purpose="fine-tune", limit=1)] == [made[2], made[0]]


def test_the_official_client_is_told_which_field_is_wrong(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.files.create(file=("a.jsonl", CONTENT), purpose="vision")
    assert caught.value.param == "purpose" and "fine-tune" in caught.value.message
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.files.create(file=("a.jsonl", b""), purpose="fine-tune")
    assert (caught.value.code, caught.value.param) == ("empty", "file")


def test_a_missing_purpose_is_named(api: Api) -> None:
    reply = api.client.post("/v1/files", files={"file": ("rows.jsonl", CONTENT)})
    assert (reply.status_code, reply.json()["error"]["code"], reply.json()["error"]["param"]) == (
        422, "missing_field", "purpose",
    )  # fmt: skip
    assert list(api.platform.store.list("datasets")) == []


def test_the_status_follows_the_dataset(api_everywhere: Api) -> None:
    good, bad = create(api_everywhere), create(api_everywhere)
    assert good["status"] == "uploaded"
    ingest(api_everywhere, good["id"])
    with session_scope(api_everywhere.platform) as session:
        service.fail_ingest(session, bad["id"], {"code": "x", "message": "row 3 is broken"})
    read = [api_everywhere.client.get(f"/v1/files/{each['id']}").json() for each in (good, bad)]
    assert [each["status"] for each in read] == ["processed", "error"]
    assert read[1]["status_details"] == "row 3 is broken"


def test_every_dataset_is_a_file_and_every_file_a_dataset(api: Api) -> None:
    dataset = api.client.post("/v1/datasets", files={"file": ("a.txt", b"x")}).json()
    file = create(api)
    assert api.client.get(f"/v1/files/{dataset['id']}").json()["purpose"] == "pretrain"
    assert api.client.get(f"/v1/datasets/{file['id']}").json()["purpose"] == "fine-tune"


@pytest.mark.parametrize("path", ["", "/content"])
def test_another_projects_file_is_missing(api: Api, path: str) -> None:
    made = create(api)["id"]
    assert api.stranger.get(f"/v1/files/{made}{path}").status_code == 404
    assert api.stranger.delete(f"/v1/files/{made}").status_code == 404
    assert api.stranger.get("/v1/files").json()["data"] == []


def test_a_file_in_use_cannot_be_deleted(api: Api) -> None:
    from app.jobs import service as jobs
    from ssl_core.spec import IngestSpec

    made = create(api)["id"]
    with session_scope(api.platform) as session:
        service.finish_ingest(session, made, [], PROFILE)
        spec = IngestSpec(dataset=made, filename="x")
        jobs.enqueue(session, project_id=api.project_id, spec=spec, inputs=[jobs.InputRef("dataset", made, "d")])
        own = service.get(session, api.project_id, made).job_id
        jobs.get(session, api.project_id, own or "").status = "succeeded"
    reply = api.client.delete(f"/v1/files/{made}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "in_use")
