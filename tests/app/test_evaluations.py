"""Evaluations at the door: what a model can be measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.app import registered
from tests.app.conftest import Api
from tests.app.jobs_world import ready_dataset
from tests.model_folders import text_model


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
