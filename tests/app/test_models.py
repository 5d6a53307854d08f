"""`/v1/models` and the rules behind it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from sqlalchemy import func, select

from app.errors import Unprocessable
from app.ids import new_id
from app.jobs import service as jobs
from app.models import service
from app.models.archive import zip_stream
from app.models.tables import Model, ModelFile
from app.platform import Platform, read_scope, session_scope
from ssl_core.inference import load
from ssl_core.spec import FinetuneSpec
from tests.app import registered
from tests.app.conftest import SECRETS, Api, LiveApi
from tests.model_folders import text_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("made") / "model", task=True)


@pytest.fixture
def model_id(api: Api, folder: Path) -> str:
    return registered.model(api.platform, api.project_id, folder)


def code(reply: object) -> tuple[int, str, str | None]:
    error = reply.json()["error"]  # type: ignore[attr-defined]
    return reply.status_code, error["code"], error["param"]  # type: ignore[attr-defined]


def live_job(api: Api, model_id: str) -> str:
    """A queued job that starts from the model."""
    spec = FinetuneSpec.model_validate({"dataset": "ds_abc", "model": model_id, "task": {"name": "classification"}})
    with session_scope(api.platform) as session:
        inputs = [jobs.InputRef("model", model_id, "0" * 64)]
        return jobs.enqueue(session, project_id=api.project_id, spec=spec, inputs=inputs).id


def test_a_model_shows_its_shape_its_lineage_and_its_card(api: Api, model_id: str) -> None:
    found = api.client.get(f"/v1/models/{model_id}").json()
    assert found["object"] == "model" and found["created"] == found["created_at"] > 1_600_000_000
    assert found["owned_by"] == api.project_id and found["name"] == "topics"
    assert (found["kind"], found["modality"], found["task"]) == ("task", "text", "classification")
    assert found["classes"] == ["cooking", "gardens", "sailing"] and found["embedding_dimensions"] == 32
    assert found["metrics"] == {"accuracy": 0.75} and found["lineage"]["datasets"][0]["digest"] == "d" * 64
    assert found["lineage"]["job"].startswith("job_") and found["lineage"]["spec"]["seed"] == 7
    assert found["card"]["software"]["torch"]


def test_models_are_listed_newest_first_page_by_page(api: Api, folder: Path) -> None:
    made = [registered.model(api.platform, api.project_id, folder) for _ in range(5)]
    first = api.client.get("/v1/models", params={"limit": 2}).json()
    second = api.client.get("/v1/models", params={"limit": 2, "after": first["last_id"]}).json()
    shown = [row["id"] for row in first["data"] + second["data"]]
    assert shown == sorted(made, reverse=True)[:4] and first["has_more"] and "card" not in first["data"][0]


def test_the_same_job_never_makes_two_models(api: Api, folder: Path) -> None:
    job_id = new_id("job")
    first = registered.model(api.platform, api.project_id, folder, job_id=job_id)
    assert registered.model(api.platform, api.project_id, folder, job_id=job_id) == first


def test_a_model_is_renamed_and_its_metadata_replaced(api: Api, model_id: str) -> None:
    name = "<b>'; DROP TABLE models; --\r\n{{7*7}}"
    changed = api.client.patch(f"/v1/models/{model_id}", json={"name": name, "metadata": {"stage": "test"}})
    assert changed.status_code == 200 and changed.json()["name"] == name
    found = api.client.get(f"/v1/models/{model_id}").json()
    assert (found["name"], found["metadata"]) == (name, {"stage": "test"})
    api.client.patch(f"/v1/models/{model_id}", json={"name": "plain"})
    assert api.client.get(f"/v1/models/{model_id}").json()["metadata"] == {"stage": "test"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"name": ""}, (422, "out_of_range", "name")),
        ({"name": "x" * 201}, (422, "out_of_range", "name")),
        ({"name": 7}, (422, "type_error", "name")),
        ({"digest": "0"}, (422, "unknown_field", "digest")),
        ({"metadata": {"k": 1}}, (422, "type_error", "metadata.k")),
        ({"metadata": {str(at): "" for at in range(17)}}, (422, "out_of_range", "metadata")),
    ],
)
def test_a_bad_change_names_its_field(api: Api, model_id: str, body: object, expected: tuple[int, str, str]) -> None:
    assert code(api.client.patch(f"/v1/models/{model_id}", json=body)) == expected


def test_a_deleted_model_is_gone_with_its_files(api: Api, model_id: str) -> None:
    api.client.get(f"/v1/models/{model_id}/download")
    with read_scope(api.platform) as session:
        keys = [file["key"] for file in service.files_of(session, model_id)]
    keys.append(service.archive_key(model_id))
    assert all(api.platform.store.exists(key) for key in keys)
    gone = api.client.delete(f"/v1/models/{model_id}")
    assert gone.json() == {"id": model_id, "object": "model", "deleted": True}
    assert api.client.get(f"/v1/models/{model_id}").status_code == 404
    assert not any(api.platform.store.exists(key) for key in keys)
    with read_scope(api.platform) as session:
        assert session.scalar(select(func.count()).select_from(ModelFile)) == 0


def test_a_model_that_a_live_job_starts_from_is_not_deleted(api: Api, model_id: str) -> None:
    job_id = live_job(api, model_id)
    refused = api.client.delete(f"/v1/models/{model_id}")
    assert code(refused) == (409, "in_use", "id") and job_id in refused.json()["error"]["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert api.client.get(f"/v1/models/{model_id}").status_code == 200


def test_reading_needs_the_scope_read_and_changing_needs_write(api: Api, model_id: str) -> None:
    reader = api.with_scopes("read")
    assert reader.get(f"/v1/models/{model_id}").status_code == 200
    assert code(reader.delete(f"/v1/models/{model_id}"))[:2] == (403, "insufficient_scope")
    assert code(reader.patch(f"/v1/models/{model_id}", json={"name": "x"}))[:2] == (403, "insufficient_scope")
    assert api.anonymous.get(f"/v1/models/{model_id}").status_code == 401


ROUTES = [
    ("GET", "/v1/models/{id}"),
    ("PATCH", "/v1/models/{id}"),
    ("DELETE", "/v1/models/{id}"),
    ("GET", "/v1/models/{id}/files"),
    ("GET", "/v1/models/{id}/files/config.json"),
    ("GET", "/v1/models/{id}/download"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_foreign_model_is_a_missing_one(api: Api, model_id: str, method: str, path: str) -> None:
    body = {"json": {"name": "mine"}} if method == "PATCH" else {}
    missing = "mdl_" + "0" * 26
    foreign = api.stranger.request(method, path.format(id=model_id), **body)  # type: ignore[arg-type]
    absent = api.stranger.request(method, path.format(id=missing), **body)  # type: ignore[arg-type]
    assert foreign.status_code == absent.status_code == 404
    assert foreign.text.replace(model_id, missing) == absent.text


def test_files_are_listed_and_served_with_their_digest(api: Api, model_id: str, folder: Path) -> None:
    listed = api.client.get(f"/v1/models/{model_id}/files").json()
    assert {file["path"] for file in listed["data"]} == {
        "card.json", "config.json", "model.safetensors", "tokenizer.json",
    }  # fmt: skip
    for file in listed["data"]:
        reply = api.client.get(f"/v1/models/{model_id}/files/{file['path']}")
        assert reply.content == (folder / file["path"]).read_bytes()
        assert reply.headers["etag"] == f'"{file["sha256"]}"' and len(reply.content) == file["bytes"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path", ["nothing.bin", "../../groundwork.db", "%2e%2e/%2e%2e/groundwork.db", "config.json/", ""]
)
def test_only_listed_files_are_served(api: Api, model_id: str, path: str) -> None:
    assert api.client.get(f"/v1/models/{model_id}/files/{path}").status_code == 404


def test_a_part_of_a_file_can_be_asked_for(api: Api, model_id: str, folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    path = f"/v1/models/{model_id}/files/model.safetensors"
    part = api.client.get(path, headers={"Range": "bytes=10-99"})
    assert part.status_code == 206 and part.content == content[10:100]
    rest = api.client.get(path, headers={"Range": "bytes=100-", "If-Range": part.headers["etag"]})
    assert rest.content == content[100:]


def test_the_download_opens_in_any_process(api: Api, model_id: str, folder: Path, tmp_path: Path) -> None:
    reply = api.client.get(f"/v1/models/{model_id}/download")
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/zip"
    assert reply.headers["etag"] == f'"{hashlib.sha256(reply.content).hexdigest()}"'
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        archive.extractall(tmp_path / "model")
    assert (load(tmp_path / "model").embed(["bread"]) == load(folder).embed(["bread"])).all()


def test_the_download_is_the_same_bytes_every_time_and_resumes(api: Api, model_id: str) -> None:
    path = f"/v1/models/{model_id}/download"
    with ThreadPoolExecutor(4) as threads:
        whole = list(threads.map(lambda _: api.client.get(path), range(4)))
    assert len({reply.content for reply in whole}) == 1
    etag = whole[0].headers["etag"]
    rest = api.client.get(path, headers={"Range": "bytes=1000-", "If-Range": etag})
    assert rest.status_code == 206 and rest.content == whole[0].content[1000:]
    assert api.client.get(path, headers={"If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize("format", ["hf", "onnx"])
def test_a_public_format_that_no_job_has_made_says_which_job_makes_it(api: Api, model_id: str, format: str) -> None:
    refused = api.client.get(f"/v1/models/{model_id}/download", params={"format": format})
    assert code(refused) == (409, "not_exported", "format") and '"type": "export"' in refused.json()["error"]["message"]


@pytest.mark.parametrize("format", ["", "zip"])
def test_an_unknown_format_says_what_is_allowed(api: Api, model_id: str, format: str) -> None:
    refused = api.client.get(f"/v1/models/{model_id}/download", params={"format": format})
    assert code(refused) == (422, "invalid_value", "format") and "'native'" in refused.json()["error"]["message"]


def test_the_name_of_a_download_cannot_split_its_header(api: Api, folder: Path) -> None:
    name = 'a"b\r\nSet-Cookie: x=1; ünïcode'
    made = registered.model(api.platform, api.project_id, folder, name=name)
    reply = api.client.get(f"/v1/models/{made}/download")
    assert reply.status_code == 200 and "set-cookie" not in reply.headers
    assert "%C3%BCn%C3%AFcode.zip" in reply.headers["content-disposition"]


async def pieces(platform: Platform, file: service.StoredFile) -> list[int]:
    return [len(block) async for block in zip_stream(platform.store, [file])]


def test_the_zip_is_made_in_pieces(platform: Platform) -> None:
    size = 24 * 2**20
    stored = platform.store.put("jobs/big", (bytes(2**20) for _ in range(24)))
    file = service.StoredFile(path="model.safetensors", size=size, sha256=stored.sha256, key="jobs/big")
    sizes = asyncio.run(pieces(platform, file))
    assert sum(sizes) > size and max(sizes) < 3 * 2**20


def test_a_job_learns_the_shape_of_its_base_model(api: Api, model_id: str, folder: Path) -> None:
    with read_scope(api.platform) as session:
        known = service.facts(session, api.project_id, model_id, "model")
    config = json.loads((folder / "config.json").read_text())
    assert known.backbone.model_dump(mode="json") == config["backbone"]
    assert known.modality.model_dump(mode="json") == config["modality"]


@pytest.mark.parametrize("whose", ["missing", "foreign"])
def test_a_base_model_of_nobody_or_of_somebody_else_is_named(api: Api, model_id: str, whose: str) -> None:
    project, asked = (api.project_id, "mdl_none") if whose == "missing" else (api.stranger_project_id, model_id)
    with read_scope(api.platform) as session, pytest.raises(Unprocessable) as caught:
        service.facts(session, project, asked, "model")
    assert (caught.value.code, caught.value.param) == ("not_found", "model")
    assert caught.value.message == f"No model with id {asked!r}."


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("kind", "neither", "summary.kind"),
        ("embed_dim", 0, "summary.embed_dim"),
        ("backbone", {"name": "x"}, "summary.backbone.family"),
        ("modality", None, "summary.modality"),
    ],
)
def test_a_result_that_could_not_be_served_is_refused(
    api: Api, folder: Path, field: str, value: object, param: str
) -> None:
    summary = {**json.loads((folder / "config.json").read_text()), field: value}
    with pytest.raises(Unprocessable) as caught:
        registered.model(api.platform, api.project_id, folder, summary=summary)
    assert caught.value.code == "invalid_summary" and str(caught.value.param).startswith(param)


def test_a_result_without_weights_is_refused(api: Api, folder: Path) -> None:
    files = registered.stored_folder(api.platform, folder, "jobs/x")
    with pytest.raises(Unprocessable) as caught:
        registered.model(
            api.platform, api.project_id, folder, files=[file for file in files if "config" in file["path"]]
        )
    assert caught.value.code == "missing_file"


def test_the_worker_sees_a_model_and_its_files(api: Api, model_id: str, folder: Path) -> None:
    worker = {"Authorization": f"Bearer {SECRETS['worker_token']}"}
    listing = api.anonymous.get(f"/internal/v1/models/{model_id}", headers=worker).json()
    assert listing["config"]["kind"] == "task" and len(listing["digest"]) == 64
    for file in listing["files"]:
        assert api.anonymous.get(file["url"], headers=worker).content == (folder / file["path"]).read_bytes()


@pytest.mark.parametrize("path", ["", "/files/config.json"])
def test_a_users_key_does_not_open_the_workers_door(api: Api, model_id: str, path: str) -> None:
    assert api.client.get(f"/internal/v1/models/{model_id}{path}").status_code == 401
    assert api.anonymous.get(f"/internal/v1/models/{model_id}{path}").status_code == 401


def test_models_live_on_every_database(everywhere: Platform, folder: Path) -> None:
    made = registered.model(everywhere, "prj_a", folder)
    with session_scope(everywhere) as session:
        row = service.lock(session, "prj_a", made)
        service.update(session, row, "renamed", {"a": "b"})
    with read_scope(everywhere) as session:
        found = session.get_one(Model, made)
        assert (found.name, found.meta, found.config["task"]["name"]) == ("renamed", {"a": "b"}, "classification")
        assert service.facts(session, "prj_a", made, "model").id == made
    with session_scope(everywhere) as session:
        assert len(service.remove(session, service.lock(session, "prj_a", made))) == 4


def test_the_official_client_lists_retrieves_and_deletes(live_api: LiveApi, folder: Path) -> None:
    platform = Platform.open(live_api.settings)
    project = live_api.client.get("/v1/projects").json()["data"]
    owner = next(row["id"] for row in project if row["name"] == "first")
    made = [registered.model(platform, owner, folder) for _ in range(2)]
    platform.close()
    client = openai.OpenAI(base_url=f"{live_api.url}/v1", api_key=live_api.key, max_retries=0)
    assert [row.id for row in client.models.list()] == made[::-1]
    assert client.models.retrieve(made[0]).owned_by == owner
    assert client.models.delete(made[0]).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve(made[0])
    assert (caught.value.code, caught.value.param) == ("not_found", "id")
