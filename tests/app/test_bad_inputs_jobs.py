"""Rows of the bad-input table about jobs and the worker's door that have no file of their own (B14–B34)."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from app.jobs.tables import Job
from app.platform import session_scope
from tests.app.conftest import Api
from tests.app.jobs_world import Worker, message_event, metrics_event, pretrain_body, ready_dataset

PICTURES = {"modality": "image", "width": 32, "height": 32, "channels": 3, "characters": 0}


@pytest.fixture(scope="module")
def texts(shared_api: Api) -> str:
    return ready_dataset(shared_api.platform, shared_api.project_id)


@pytest.fixture(scope="module")
def pictures(shared_api: Api) -> str:
    return ready_dataset(shared_api.platform, shared_api.project_id, b"pictures", **PICTURES)


def refused(reply: Any) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error["param"]


TEXT = [
    ('{"optimizer": {"learning_rate": NaN}}', "not_finite", "optimizer.learning_rate"),
    ('{"optimizer": {"learning_rate": 1e400}}', "not_finite", "optimizer.learning_rate"),
    ('{"objective": {"name": "mlm", "mask_probability": 0}}', "out_of_range", "objective.mask_probability"),
    ('{"objective": {"name": "mlm", "mask_probability": 1}}', "out_of_range", "objective.mask_probability"),
    ('{"budget": {"epochs": -1}}', "out_of_range", "budget.epochs"),
    ('{"budget": {"steps": 9223372036854775808}}', "out_of_range", "budget.steps"),
    ('{"budget": {"steps": 1.5}}', "type_error", "budget.steps"),
    ('{"budget": {"steps": 1}, "budget": {"steps": 2}}', "duplicate_key", "budget"),
    ('{"id": "job_x"}', "unknown_field", "id"),
    ('{"resume_from": "ckpt_01jd3w9ccc"}', "unknown_field", "resume_from"),
    ('{"modality": {"name": "smell"}}', "invalid_value", "modality"),
    ('{"modality": {"name": "image"}}', "modality_mismatch", "modality.name"),
    ('{"modality": {"name": "text", "max_length": 8192}}', "infeasible_config", "modality.max_length"),
    ('{"backbone": {"name": "custom", "family": "transformer", "width": 100, "depth": 2, "heads": 3}}',
     "invalid_value", "backbone"),
    ('{"dataset": "ds_x; DROP TABLE jobs"}', "invalid_format", "dataset"),
    ('{"suffix": "a\\u0000b"}', "invalid_character", "suffix"),
]  # fmt: skip


SHAPES = [
    ({"type": "bake"}, "invalid_value", "type"),
    ({"objective": {"name": "guess"}}, "invalid_value", "objective"),
    ({"objective": "mlm"}, "type_error", "objective"),
    ({"budget": 10}, "type_error", "budget"),
]


@pytest.mark.parametrize(("change", "code", "param"), SHAPES)
def test_a_wrong_shape_or_kind_is_named_in_plain_words(
    shared_api: Api, texts: str, change: dict[str, Any], code: str, param: str
) -> None:
    body = {"type": "pretrain", "dataset": texts, "objective": {"name": "mlm"}, **change}
    reply = shared_api.client.post("/v1/jobs", json=body)
    message = reply.json()["error"]["message"]
    assert refused(reply) == (422, code, param)
    assert ("must be an object" if code == "type_error" else "is not known; allowed are") in message, message


def test_a_body_that_is_no_object_is_told_as_that(shared_api: Api) -> None:
    reply = shared_api.client.post("/v1/jobs", json=[])
    assert refused(reply) == (422, "type_error", None)
    assert reply.json()["error"]["message"].startswith("The body must be an object")


@pytest.mark.parametrize(("change", "code", "param"), TEXT)
def test_a_number_that_cannot_be_trained_with_is_named(
    shared_api: Api, texts: str, change: str, code: str, param: str
) -> None:
    body = f'{{"type": "pretrain", "dataset": "{texts}", "objective": {{"name": "mlm"}}, {change[1:]}'
    if param in ("dataset", "objective.mask_probability"):
        named = param.partition(".")[0]
        kept = {"dataset": f'"dataset": "{texts}", ', "objective": '"objective": {"name": "mlm"}, '}[named]
        body = body.replace(kept, "", 1)
    for path in ("/v1/jobs", "/v1/jobs/estimate"):
        reply = shared_api.client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert refused(reply) == (422, code, param), reply.text


IMAGE: list[tuple[dict[str, Any], str, str]] = [
    ({"modality": {"name": "image", "size": 100_000}}, "out_of_range", "modality.size"),
    ({"modality": {"name": "image", "size": 64}}, "infeasible_config", "modality.size"),
    ({"batch_size": 2000}, "infeasible_config", "batch_size"),
    ({"modality": {"name": "image", "crop_min": 1.5}}, "out_of_range", "modality.crop_min"),
    ({"modality": {"name": "image", "channels": 2}}, "invalid_value", "modality.channels"),
    ({"backbone": "text-small"}, "backbone_mismatch", "backbone.family"),
    ({"objective": {"name": "mlm"}}, "modality_mismatch", "objective.name"),
]


@pytest.mark.parametrize(("change", "code", "param"), IMAGE)
def test_what_pictures_cannot_be_trained_with_is_named(
    shared_api: Api, pictures: str, change: dict[str, Any], code: str, param: str
) -> None:
    body = {"type": "pretrain", "dataset": pictures, "objective": {"name": "simclr"}, **change}
    assert refused(shared_api.client.post("/v1/jobs", json=body)) == (422, code, param)


def test_unknown_names_are_answered_with_those_that_are_known(shared_api: Api, texts: str) -> None:
    for change, known in (({"objective": {"name": "x"}}, "'mlm'"), ({"backbone": "x"}, "text-small"),
                          ({"modality": {"name": "x"}}, "'text'")):  # fmt: skip
        reply = shared_api.client.post("/v1/jobs", json=pretrain_body(texts, **change))
        assert known in reply.json()["error"]["message"]


@pytest.mark.parametrize(("rows", "code"), [(0, "dataset_empty"), (1, "dataset_too_small")])
def test_a_dataset_too_small_to_learn_from_is_named(shared_api: Api, rows: int, code: str) -> None:
    small = ready_dataset(shared_api.platform, shared_api.project_id, f"{rows}".encode(), rows=rows, labelled=rows)
    reply = shared_api.client.post("/v1/jobs", json=pretrain_body(small))
    assert refused(reply) == (422, code, "dataset")


def test_an_invalid_and_a_deleted_dataset_are_named(shared_api: Api) -> None:
    api = shared_api
    gone, broken = (ready_dataset(api.platform, api.project_id, each) for each in (b"gone", b"broken"))
    assert api.client.delete(f"/v1/datasets/{gone}").status_code == 200
    from app.datasets.tables import Dataset

    with session_scope(api.platform) as session:
        session.get_one(Dataset, broken).status = "invalid"
    assert refused(api.client.post("/v1/jobs", json=pretrain_body(gone))) == (422, "not_found", "dataset")
    status, _, param = refused(api.client.post("/v1/jobs", json=pretrain_body(broken)))
    assert (status, param) == (422, "dataset")


IMPORTS = ["antigravity.x", "file:///etc/passwd", "${HOME}/x", "!!python/object:os.system", "torch.nn:Linear"]


@pytest.mark.parametrize("text", IMPORTS)
def test_a_path_to_code_is_a_name_that_nobody_knows(shared_api: Api, texts: str, text: str) -> None:
    for change in ({"objective": {"name": text}}, {"backbone": text}, {"modality": {"name": text}}, {"dataset": text},
                   {"model": text}, {"type": text}, {"objective": {"name": "mlm", "class": text}}):  # fmt: skip
        reply = shared_api.client.post("/v1/jobs", json=pretrain_body(texts) | change)
        assert reply.status_code == 422, change
    assert "antigravity" not in sys.modules and "torch" not in reply.text.replace(text, "")


def test_hostile_strings_are_stored_and_shown_verbatim(api_everywhere: Api) -> None:
    hostile = "'; DROP TABLE jobs; -- {{7*7}} ${HOME} $(id) <script>alert(1)</script>\r\nSet-Cookie: a=b \u202e é🙂"
    dataset = ready_dataset(api_everywhere.platform, api_everywhere.project_id)
    body = pretrain_body(dataset, metadata={"note": hostile}, suffix="<b>'\"; --")
    made = api_everywhere.client.post("/v1/jobs", json=body)
    url = f"/v1/jobs/{made.json()['id']}"
    for reply in (made, api_everywhere.client.get(url)):
        assert reply.json()["metadata"] == {"note": hostile} and reply.json()["spec"] == body
        assert "set-cookie" not in reply.headers and reply.headers["content-type"] == "application/json"
    found = api_everywhere.client.get("/v1/jobs", params={"metadata[note]": hostile}).json()["data"]
    assert [f"/v1/jobs/{each['id']}" for each in found] == [url]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/datasets", "/v1/files", "/v1/models", "/v1/api_keys"])
def test_every_list_refuses_a_limit_out_of_range_and_a_forged_cursor(shared_api: Api, path: str) -> None:
    for limit in ("-1", "0", "101", "1000000000", "x", "1e2"):
        assert refused(shared_api.client.get(path, params={"limit": limit})) == (422, "invalid_limit", "limit")
    for cursor in ("nothing", "' OR 1=1 --", "job_0"):
        assert refused(shared_api.client.get(path, params={"after": cursor})) == (400, "invalid_cursor", "after")


def test_a_cursor_from_another_filter_is_no_cursor(api: Api) -> None:
    dataset = ready_dataset(api.platform, api.project_id)
    job = api.client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"]
    reply = api.client.get("/v1/jobs", params={"status": "cancelled", "after": job})
    assert refused(reply) == (400, "invalid_cursor", "after")


def test_a_dataset_and_a_model_in_use_are_not_deleted_and_a_job_cannot_be(api: Api) -> None:
    dataset = ready_dataset(api.platform, api.project_id)
    job = api.client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"]
    assert refused(api.client.delete(f"/v1/datasets/{dataset}"))[:2] == (409, "in_use")
    assert refused(api.client.delete(f"/v1/files/{dataset}"))[:2] == (409, "in_use")
    assert refused(api.client.delete(f"/v1/jobs/{job}"))[:2] == (405, "method_not_allowed")
    api.client.post(f"/v1/jobs/{job}/cancel")
    assert api.client.delete(f"/v1/datasets/{dataset}").status_code == 200


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_an_ended_job_is_not_steered(api: Api, verb: str) -> None:
    job = api.client.post("/v1/jobs", json=pretrain_body(ready_dataset(api.platform, api.project_id))).json()["id"]
    with session_scope(api.platform) as session:
        session.get_one(Job, job).status = "succeeded"
    reply = api.client.post(f"/v1/jobs/{job}/{verb}")
    assert refused(reply)[:2] == (409, "invalid_state") and reply.headers["x-should-retry"] == "false"


def test_a_finished_attempt_writes_no_more(api: Api) -> None:
    worker = Worker(api.anonymous)
    job = api.client.post("/v1/jobs", json=pretrain_body(ready_dataset(api.platform, api.project_id))).json()["id"]
    ticket = worker.claim(job)
    assert ticket is not None
    worker.post(ticket, "fail", error={"class": "user", "code": "c", "message": "m"})
    for verb, body in {"heartbeat": {}, "events": {"events": []}, "logs": {"offset": 0, "text": "x"}}.items():
        assert refused(worker.post(ticket, verb, **body))[:2] == (409, "lease_lost"), verb


def test_what_a_worker_may_not_tell_is_refused(api: Api) -> None:
    worker = Worker(api.anonymous)
    job = api.client.post("/v1/jobs", json=pretrain_body(ready_dataset(api.platform, api.project_id))).json()["id"]
    ticket = worker.claim(job)
    assert ticket is not None
    url, token = f"/internal/v1/jobs/{job}/events", {"Authorization": f"Bearer {ticket['token']}"}
    for bad, code in (
        ('{"fence": 1, "events": [{"seq": 1, "time": NaN}]}', "not_finite"),
        ("{" * 1_000_001, "body_too_large"),
    ):
        headers = {**token, "Content-Type": "application/json"}
        reply = api.anonymous.post(url, content=bad, headers=headers)
        assert refused(reply)[1] == code
    for event in (metrics_event(1, 1, **{"x" * 1_000: 1.0}), metrics_event(1, -1, loss=1.0),
                  metrics_event(1, 2**40, loss=1.0), message_event(1, "c" * 65)):  # fmt: skip
        assert worker.post(ticket, "events", events=[event]).status_code == 422
    wide = [metrics_event(at, 1, **{f"s{at}_{each}": 1.0 for each in range(200)}) for at in range(1, 51)]
    assert worker.post(ticket, "events", events=wide).status_code == 422, "10,000 series"
    assert worker.post(ticket, "events", events=[metrics_event(1, 1, loss="nan")]).status_code == 200
    series = api.client.get(f"/v1/jobs/{job}/metrics").json()["series"]
    assert series == [{"name": "loss", "steps": [1], "values": ["nan"]}]


def test_the_standing_quota_of_datasets_is_exact(sqlite_url: str, tmp_path: Any) -> None:
    from tests.app.conftest import make_settings, serve

    for api in serve(make_settings(sqlite_url, tmp_path, max_datasets=2)):
        replies = [api.client.post("/v1/datasets", files={"file": ("a.txt", b"x\n")}) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [201, 201, 403]
        assert refused(replies[2])[1] == "quota_exceeded"


def test_every_route_refuses_a_caller_without_a_key_alike(shared_api: Api) -> None:
    """Whatever the route, its body and its id: nobody learns which exist (B17)."""
    from tests.app.test_tenancy_matrix import body_of

    document = shared_api.app.openapi()
    answers = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items() if path.startswith("/v1/") else ():
            sent = body_of(operation, document)
            url = path.replace("{path}", "a")
            for name in ("key", "project", "dataset", "file", "upload", "job", "sample", "model"):
                url = url.replace(f"{{{name}_id}}", "x")
            reply = shared_api.anonymous.request(method.upper(), url, **sent)
            assert reply.status_code == 401, (method, path, reply.text)
            answers.add((reply.content, reply.headers["www-authenticate"]))
    assert len(answers) == 1
