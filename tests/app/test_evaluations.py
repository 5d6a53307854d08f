"""Evaluations at the door: what a model can be measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.app import registered
from tests.app.conftest import Api
from tests.app.jobs_world import ready_dataset
from tests.model_folders import image_model, text_model


def evaluate(api: Api, model: str, dataset: str) -> tuple[int, dict[str, Any]]:
    reply = api.client.post("/v1/jobs", json={"type": "evaluate", "model": model, "dataset": dataset})
    return reply.status_code, reply.json()


def pretrained(api: Api, folder: Path, objective: str | None) -> str:
    made = text_model(folder)
    model = registered.model(api.platform, api.project_id, made)
    if objective is not None:
        from app.models.tables import Model
        from app.platform import session_scope

        with session_scope(api.platform) as session:
            row = session.get_one(Model, model)
            row.config = {**row.config, "objective": {"name": objective}}
    return model


def test_a_pretrained_model_is_measured_on_rows_without_labels(api: Api, tmp_path: Path) -> None:
    model = pretrained(api, tmp_path / "m", "mlm")
    status, job = evaluate(api, model, ready_dataset(api.platform, api.project_id, labelled=0, classes=[]))
    assert (status, job["status"]) == (201, "queued")


@pytest.mark.parametrize(
    ("objective", "profile", "code", "param"),
    [
        (None, {}, "no_task", "model"),
        ("mlm", {"modality": "image"}, "modality_mismatch", "dataset"),
        ("mlm", {"rows": 1}, "dataset_too_small", "dataset"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_field(
    api: Api, tmp_path: Path, objective: str | None, profile: dict[str, Any], code: str, param: str
) -> None:
    model = pretrained(api, tmp_path / "m", objective)
    status, told = evaluate(api, model, ready_dataset(api.platform, api.project_id, **profile))
    assert (status, told["error"]["code"], told["error"]["param"]) == (422, code, param)


def asked(api: Api, kind: str, model: str, dataset: str, **more: Any) -> tuple[int, dict[str, Any]]:
    reply = api.client.post("/v1/jobs", json={"type": kind, "model": model, "dataset": dataset, **more})
    return reply.status_code, reply.json()


@pytest.mark.parametrize("kind", ["predict", "embed"])
def test_a_model_may_be_asked_about_every_row_of_data_without_labels(api: Api, tmp_path: Path, kind: str) -> None:
    model = registered.model(api.platform, api.project_id, text_model(tmp_path / "m", task=True))
    dataset = ready_dataset(api.platform, api.project_id, labelled=0, classes=[])
    status, job = asked(api, kind, model, dataset)
    assert (status, job["status"], job["type"]) == (201, "queued", kind)
    listed = api.client.get("/v1/jobs", params={"type": kind}).json()["data"]
    assert [each["id"] for each in listed] == [job["id"]]


@pytest.mark.parametrize(
    ("kind", "more", "profile", "code", "param"),
    [
        ("predict", {}, {}, "no_task", "model"),
        ("embed", {}, {"modality": "image"}, "modality_mismatch", "dataset"),
        ("embed", {"pooling": "first"}, {}, "invalid_value", "pooling"),
        ("embed", {"dimensions": 3}, {}, "unknown_field", "dimensions"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_field(
    api: Api, tmp_path: Path, kind: str, more: dict[str, Any], profile: dict[str, Any], code: str, param: str
) -> None:
    model = pretrained(api, tmp_path / "m", "mlm")
    status, told = asked(api, kind, model, ready_dataset(api.platform, api.project_id, **profile), **more)
    assert (status, told["error"]["code"], told["error"]["param"]) == (422, code, param)


def test_vectors_of_the_first_token_need_an_encoder_of_tokens(api: Api, tmp_path: Path) -> None:
    model = registered.model(api.platform, api.project_id, image_model(tmp_path / "m"))
    dataset = ready_dataset(api.platform, api.project_id, modality="image")
    status, told = asked(api, "embed", model, dataset, pooling="cls")
    assert (status, told["error"]["code"], told["error"]["param"]) == (422, "unsupported_pooling", "pooling")


def test_an_evaluation_takes_along_what_its_model_learned_from(api: Api, tmp_path: Path) -> None:
    from app.models.tables import Model
    from app.platform import session_scope

    pool, rows, other = (ready_dataset(api.platform, api.project_id, name) for name in (b"pool", b"rows", b"other"))
    model = registered.model(api.platform, api.project_id, text_model(tmp_path / "m", task=True))
    with session_scope(api.platform) as session:
        known = [{"id": pool, "role": "pool", "digest": "0"}, {"id": rows, "role": "dataset", "digest": "1"}]
        row = session.get_one(Model, model)
        row.lineage = {**row.lineage, "datasets": known}
        classes = list(row.config["classes"])
    test = ready_dataset(api.platform, api.project_id, b"test", classes=classes)
    status, job = evaluate(api, model, test)
    assert status == 201, job
    spec = job["resolved_spec"]
    assert (spec["training_dataset"], spec["pool"], spec["allow_leakage"]) == (rows, pool, False)
    status, job = asked(api, "evaluate", model, test, pool=other)
    assert (job["resolved_spec"]["training_dataset"], job["resolved_spec"]["pool"]) == (rows, other)
    pictures = ready_dataset(api.platform, api.project_id, b"pictures", modality="image")
    status, told = asked(api, "evaluate", model, test, training_dataset=pictures)
    assert (status, told["error"]["code"], told["error"]["param"]) == (422, "modality_mismatch", "training_dataset")
