"""Datasets over HTTP: in, ingested, seen, out again (api.md "Datasets", B21, B22, B29, B32)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from sqlalchemy import select

from app.datasets import service
from app.datasets.tables import StorageAccount
from app.errors import ApiError
from app.ids import new_id
from app.jobs import service as jobs
from app.platform import session_scope
from ssl_core.spec import IngestSpec
from tests.app.conftest import Api

TEXT = b"one line\nanother line\n"
SHA256 = hashlib.sha256(TEXT).hexdigest()
PROFILE = {
    "modality": "text", "rows": 2, "labelled": 1, "classes": ["a"], "class_counts": {"a": 1}, "characters": 20,
    "bad_rows": 2, "lengths": {"min": 8, "median": 10, "p95": 12, "max": 12},
}  # fmt: skip
BAD_ROWS = [{"file": "lines.txt", "row": n, "code": "encoding_error", "message": "not UTF-8"} for n in (3, 4)]
PREVIEW = [{"text": "one line", "label": "a", "source": "lines.txt:1"}]


def upload(api: Api, content: bytes = TEXT, filename: str = "lines.txt", **fields: Any) -> dict[str, Any]:
    reply = api.client.post("/v1/datasets", files={"file": (filename, content)}, data=fields)
    assert reply.status_code == 201, reply.text
    made: dict[str, Any] = reply.json()
    return made


def ingest(api: Api, dataset_id: str, **changes: Any) -> None:
    """What a worker's ingest leaves behind."""
    contents = {
        "rows-00000.parquet": b"rows of " + dataset_id.encode(),
        "preview.json": json.dumps(PREVIEW).encode(),
        "profile.json": json.dumps(PROFILE).encode(),
        "errors.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in BAD_ROWS),
    }
    files: list[service.StoredFile] = []
    for path, content in contents.items():
        stored = api.platform.store.put(f"jobs/job_x/1/artifact/{dataset_id}/{path}", content)
        files.append({"path": path, "size": stored.size, "sha256": stored.sha256, "key": stored.key})
    with session_scope(api.platform) as session:
        service.begin_ingest(session, dataset_id)
        service.finish_ingest(session, dataset_id, files, {**PROFILE, **changes})


def end_job(api: Api, job_id: str) -> None:
    with session_scope(api.platform) as session:
        jobs.get(session, api.project_id, job_id).status = "succeeded"


def ready(api: Api, **changes: Any) -> dict[str, Any]:
    made = upload(api)
    ingest(api, made["id"], **changes)
    end_job(api, made["job"])
    shown: dict[str, Any] = api.client.get(f"/v1/datasets/{made['id']}").json()
    return shown


def used_bytes(api: Api) -> int:
    with session_scope(api.platform) as session:
        return session.scalar(select(StorageAccount.used_bytes).where(StorageAccount.project_id == api.project_id)) or 0


def error(reply: Any, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    found: dict[str, Any] = reply.json()["error"]
    return found


def test_an_upload_becomes_a_dataset_that_waits_for_ingest(api_everywhere: Api) -> None:
    made = upload(api_everywhere, name="my lines", modality="text", metadata='{"a": "b"}', columns='{"text": "body"}')
    assert made["object"] == "dataset" and made["status"] == "uploaded" and made["name"] == "my lines"
    assert (made["sha256"], made["bytes"], made["filename"]) == (SHA256, len(TEXT), "lines.txt")
    assert made["modality"] == "text" and made["metadata"] == {"a": "b"} and made["columns"] == {"text": "body"}
    assert api_everywhere.client.get(f"/v1/datasets/{made['id']}").json() == made


def test_the_ingest_job_is_written_with_the_dataset(api_everywhere: Api) -> None:
    made = upload(api_everywhere, modality="text")
    with session_scope(api_everywhere.platform) as session:
        job = jobs.get(session, api_everywhere.project_id, made["job"])
        assert (job.type, job.status) == ("ingest", "queued")
        assert job.resolved_spec["dataset"] == made["id"] and job.resolved_spec["filename"] == "lines.txt"
        assert service.upload_file(session, made["id"])[0] == SHA256


def test_the_same_idempotency_key_makes_one_dataset(api_everywhere: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    replies = [
        api_everywhere.client.post("/v1/datasets", files={"file": ("a.txt", TEXT)}, headers=headers) for _ in range(2)
    ]
    assert replies[0].json() == replies[1].json()
    assert len(api_everywhere.client.get("/v1/datasets").json()["data"]) == 1


def test_ingest_moves_the_status_and_brings_the_numbers(api_everywhere: Api) -> None:
    made = upload(api_everywhere)
    with session_scope(api_everywhere.platform) as session:
        service.begin_ingest(session, made["id"])
    assert api_everywhere.client.get(f"/v1/datasets/{made['id']}").json()["status"] == "ingesting"
    ingest(api_everywhere, made["id"])
    shown = api_everywhere.client.get(f"/v1/datasets/{made['id']}").json()
    assert (shown["status"], shown["rows"], shown["labelled"], shown["bad_rows"]) == ("ready", 2, 1, 2)
    assert shown["modality"] == "text" and len(shown["digest"]) == 64 and shown["finished_at"] >= shown["created_at"]


def test_an_ingest_reported_twice_changes_nothing(api_everywhere: Api) -> None:
    shown, used = ready(api_everywhere), used_bytes(api_everywhere)
    with session_scope(api_everywhere.platform) as session:
        service.finish_ingest(session, shown["id"], [], {**PROFILE, "rows": 99})
        service.fail_ingest(session, shown["id"], {"code": "late", "message": "late"})
        service.begin_ingest(session, shown["id"])
    assert api_everywhere.client.get(f"/v1/datasets/{shown['id']}").json() == shown
    assert used_bytes(api_everywhere) == used


def test_the_digest_depends_on_the_rows_and_not_on_the_preview() -> None:
    rows = service.StoredFile(path="rows-00000.parquet", size=1, sha256="a" * 64, key="k")
    preview = service.StoredFile(path="preview.json", size=1, sha256="b" * 64, key="p")
    other = service.StoredFile(path="rows-00000.parquet", size=1, sha256="c" * 64, key="k")
    assert service.digest_of([rows]) == hashlib.sha256(f"rows-00000.parquet {'a' * 64}\n".encode()).hexdigest()
    assert service.digest_of([rows]) == service.digest_of([preview, rows]) != service.digest_of([other])


def test_a_failed_ingest_says_what_was_wrong(api_everywhere: Api) -> None:
    made = upload(api_everywhere)
    failure = {"class": "data", "code": "encoding_error", "message": "row 7 is not UTF-8", "param": "lines.txt:7"}
    with session_scope(api_everywhere.platform) as session:
        service.fail_ingest(session, made["id"], failure)
    shown = api_everywhere.client.get(f"/v1/datasets/{made['id']}").json()
    assert shown["status"] == "invalid"
    assert shown["error"] == {"code": "encoding_error", "message": "row 7 is not UTF-8", "param": "lines.txt:7"}
    rows = api_everywhere.client.get(f"/v1/datasets/{made['id']}/errors").json()["data"]
    assert rows == [{"file": "lines.txt", "row": 7, "code": "encoding_error", "message": "row 7 is not UTF-8"}]
    assert error(api_everywhere.client.get(f"/v1/datasets/{made['id']}/preview"), 409)["code"] == "dataset_invalid"


def test_preview_profile_and_bad_rows_are_what_ingest_wrote(api: Api) -> None:
    made = ready(api)
    base = f"/v1/datasets/{made['id']}"
    assert api.client.get(f"{base}/preview").json() == {"object": "dataset.preview", "id": made["id"], "rows": PREVIEW}
    assert api.client.get(f"{base}/profile").json() == {"object": "dataset.profile", "id": made["id"], **PROFILE}
    assert api.client.get(f"{base}/errors").json() == {"object": "list", "data": BAD_ROWS, "has_more": False}


@pytest.mark.parametrize("what", ["preview", "profile", "errors"])
def test_nothing_is_shown_before_it_is_ready(api: Api, what: str) -> None:
    made = upload(api)
    assert error(api.client.get(f"/v1/datasets/{made['id']}/{what}"), 409)["code"] == "not_ready"


def test_the_content_comes_back_as_it_was_sent_and_resumes(api: Api) -> None:
    made = upload(api, filename='größe "1".txt')
    url = f"/v1/datasets/{made['id']}/content"
    whole = api.client.get(url)
    assert whole.content == TEXT and whole.headers["etag"] == f'"{SHA256}"'
    assert (
        "attachment" in whole.headers["content-disposition"]
        and "gr%C3%B6%C3%9Fe" in whole.headers["content-disposition"]
    )
    rest = api.client.get(url, headers={"Range": "bytes=9-", "If-Range": whole.headers["etag"]})
    assert rest.status_code == 206 and rest.content == TEXT[9:]


def test_the_list_is_newest_first_filtered_and_paged(api_everywhere: Api) -> None:
    made = [upload(api_everywhere, modality=modality)["id"] for modality in ("text", "image", "text")]
    client = api_everywhere.client
    assert [row["id"] for row in client.get("/v1/datasets").json()["data"]] == made[::-1]
    texts = client.get("/v1/datasets", params={"modality": "text", "limit": 1}).json()
    assert [row["id"] for row in texts["data"]] == [made[2]] and texts["has_more"]
    rest = client.get("/v1/datasets", params={"modality": "text", "after": texts["last_id"]}).json()
    assert [row["id"] for row in rest["data"]] == [made[0]] and not rest["has_more"]
    assert client.get("/v1/datasets", params={"status": "ready"}).json()["data"] == []
    assert error(client.get("/v1/datasets", params={"status": "gone"}), 422)["param"] == "status"


def test_a_delete_takes_rows_and_bytes(api_everywhere: Api) -> None:
    made = ready(api_everywhere)
    assert api_everywhere.client.delete(f"/v1/datasets/{made['id']}").json() == {
        "id": made["id"], "object": "dataset", "deleted": True, "models": [],
    }  # fmt: skip
    assert error(api_everywhere.client.get(f"/v1/datasets/{made['id']}"), 404)["code"] == "not_found"
    left = [key for prefix in ("datasets", "jobs") for key, _ in api_everywhere.platform.store.list(prefix)]
    assert left == [] and used_bytes(api_everywhere) == 0
    assert error(api_everywhere.client.delete(f"/v1/datasets/{made['id']}"), 404)["code"] == "not_found"


def test_a_dataset_that_a_live_job_reads_stays(api_everywhere: Api) -> None:
    made = ready(api_everywhere)
    with session_scope(api_everywhere.platform) as session:
        spec = IngestSpec(dataset=made["id"], filename="x")
        read = [jobs.InputRef("dataset", made["id"], made["digest"])]
        job = jobs.enqueue(session, project_id=api_everywhere.project_id, spec=spec, inputs=read).id
    refused = error(api_everywhere.client.delete(f"/v1/datasets/{made['id']}"), 409)
    assert refused["code"] == "in_use" and job in refused["message"]
    end_job(api_everywhere, job)
    assert api_everywhere.client.delete(f"/v1/datasets/{made['id']}").status_code == 200


def test_deleting_before_ingest_cancels_it(api_everywhere: Api) -> None:
    made = upload(api_everywhere)
    assert api_everywhere.client.delete(f"/v1/datasets/{made['id']}").status_code == 200
    with session_scope(api_everywhere.platform) as session:
        assert jobs.get(session, api_everywhere.project_id, made["job"]).status == "cancelled"
        service.finish_ingest(session, made["id"], [], PROFILE)
    assert api_everywhere.client.get(f"/v1/datasets/{made['id']}").status_code == 404


@pytest.mark.parametrize("path", ["", "/preview", "/profile", "/errors", "/content"])
def test_another_projects_dataset_is_a_missing_one_to_the_byte(api: Api, path: str) -> None:
    made, missing = ready(api)["id"], new_id("ds")
    foreign = api.stranger.get(f"/v1/datasets/{made}{path}")
    absent = api.stranger.get(f"/v1/datasets/{missing}{path}")
    assert foreign.status_code == 404
    assert foreign.content.replace(made.encode(), missing.encode()) == absent.content


def test_a_stranger_cannot_delete_or_list_it(api: Api) -> None:
    made = ready(api)["id"]
    assert api.stranger.delete(f"/v1/datasets/{made}").status_code == 404
    assert api.stranger.get("/v1/datasets").json()["data"] == []
    assert api.client.get(f"/v1/datasets/{made}").status_code == 200


@pytest.mark.parametrize(
    "strange", ["ds_%00", "ds_'; DROP TABLE datasets;--", "ds_\ud83d\ude00", "../etc/passwd", "%2e%2e"]
)
def test_a_strange_id_is_a_missing_one(api_everywhere: Api, strange: str) -> None:
    strange = strange.encode("utf-16", "surrogatepass").decode("utf-16")
    assert api_everywhere.client.get(f"/v1/datasets/{strange}").status_code == 404


def test_a_key_that_may_only_read_cannot_upload_or_delete(api: Api) -> None:
    made, reader = ready(api)["id"], api.with_scopes("read")
    assert reader.get(f"/v1/datasets/{made}").status_code == 200
    assert reader.delete(f"/v1/datasets/{made}").status_code == 403
    assert reader.post("/v1/datasets", files={"file": ("a.txt", TEXT)}).status_code == 403
    assert api.anonymous.get(f"/v1/datasets/{made}").status_code == 401


def facts_error(api: Api, project_id: str, dataset_id: str) -> ApiError:
    with session_scope(api.platform) as session, pytest.raises(ApiError) as caught:
        service.facts(session, project_id, dataset_id, "dataset")
    return caught.value


def test_facts_hold_what_a_recipe_needs(api_everywhere: Api) -> None:
    made = ready(api_everywhere)
    with session_scope(api_everywhere.platform) as session:
        facts = service.facts(session, api_everywhere.project_id, made["id"], "dataset")
    assert (facts.id, facts.modality, facts.rows, facts.labelled) == (made["id"], "text", 2, 1)
    assert (facts.classes, facts.class_counts, facts.characters) == (["a"], {"a": 1}, 20)


def test_facts_of_missing_and_foreign_datasets_name_the_field_alike(api: Api) -> None:
    made, missing = ready(api)["id"], new_id("ds")
    foreign = facts_error(api, api.stranger_project_id, made)
    absent = facts_error(api, api.stranger_project_id, missing)
    assert (foreign.status, foreign.code, foreign.param) == (422, "not_found", "dataset")
    assert foreign.message.replace(made, missing) == absent.message


def test_facts_refuse_what_cannot_be_trained_on(api: Api) -> None:
    waiting, empty, bad = upload(api)["id"], ready(api, rows=0, labelled=0)["id"], upload(api)["id"]
    with session_scope(api.platform) as session:
        service.fail_ingest(session, bad, {"code": "encoding_error", "message": "not UTF-8"})
    found = [facts_error(api, api.project_id, each) for each in (waiting, empty, bad)]
    assert [(each.status, each.code) for each in found] == [
        (409, "not_ready"), (422, "dataset_empty"), (422, "dataset_invalid"),
    ]  # fmt: skip


def test_a_worker_gets_digest_and_files_of_a_ready_dataset(api_everywhere: Api) -> None:
    made = ready(api_everywhere)
    with session_scope(api_everywhere.platform) as session:
        digest, files = service.digest_and_files(session, made["id"])
    assert digest == made["digest"] and files[0]["path"] == "rows-00000.parquet"
    content = api_everywhere.platform.store.get(files[0]["key"])
    assert hashlib.sha256(content).hexdigest() == files[0]["sha256"]
