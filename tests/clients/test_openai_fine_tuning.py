"""`/v1/fine_tuning/jobs` with the official client as it is, over a real socket."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.app.jobs_world import message_event, metrics_event, progress_event
from tests.app.registered import model
from tests.clients.conftest import World
from tests.model_folders import text_model

PRETRAIN: Any = {"type": "pretrain"}
MLM = {"objective": {"name": "mlm"}}


def pretraining(world: World, dataset: str, **body: Any) -> Any:
    return world.openai().fine_tuning.jobs.create(
        model="auto", training_file=dataset, method=PRETRAIN, extra_body={**MLM, **body}
    )


def test_a_pretraining_walks_from_create_to_its_model_and_curves(world: World) -> None:
    client, dataset = world.openai(), world.dataset()
    made = pretraining(world, dataset, budget={"steps": 100}, seed=7, metadata={"who": "me"})
    assert (made.object, made.status, made.training_file, made.seed) == ("fine_tuning.job", "queued", dataset, 7)
    assert (made.organization_id, made.metadata, made.result_files) == (world.project_id, {"who": "me"}, [])
    assert made.method.type == "pretrain" and made.fine_tuned_model is None and made.error is None
    ticket = world.worker.claim(made.id)
    assert ticket is not None and ticket["spec"]["budget"]["steps"] == 100
    world.worker.post(ticket, "events", events=[
        metrics_event(1, 50, **{"train/loss": 2.5}), {**progress_event(2, 50), "eta_seconds": 60.0},
        {**message_event(3, "slow", 50), "level": "warning"},
    ])  # fmt: skip
    world.worker.checkpoint(ticket, 50)
    running = client.fine_tuning.jobs.retrieve(made.id)
    assert running.status == "running" and running.trained_tokens is None and running.estimated_finish
    world.worker.post(ticket, "events", events=[progress_event(4, 100)])
    assert world.worker.complete(ticket).json() == {"status": "succeeded"}
    done = client.fine_tuning.jobs.retrieve(made.id)
    assert done.status == "succeeded" and done.finished_at and done.estimated_finish is None
    assert client.models.retrieve(done.fine_tuned_model or "").id.startswith("mdl_")
    # Masked modelling trains on full rows, so this count is exact.
    assert done.trained_tokens == 100 * ticket["spec"]["batch_size"] * ticket["spec"]["modality"]["max_length"]
    [file] = done.result_files
    assert client.files.content(file).read() == b"series,step,value\ntrain/loss,50,2.5\n"
    about = client.files.retrieve(file)
    assert (about.filename, about.bytes, about.purpose) == ("metrics.csv", 36, "fine-tune-results")


def test_a_supervised_training_starts_from_a_model_with_the_asked_numbers(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    client, dataset, held_out = world.openai(), world.dataset(), world.dataset(b"more")
    base = model(world.platform, world.project_id, text_model(tmp_path_factory.mktemp("made") / "model"))
    numbers: Any = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 0.5}
    plain = client.fine_tuning.jobs.create(model=base, training_file=dataset)
    made = client.fine_tuning.jobs.create(
        model=base, training_file=dataset, validation_file=held_out, suffix="mine",
        method={"type": "supervised", "supervised": {"hyperparameters": numbers}},
        extra_body={"task": {"name": "classification", "mode": "full"}, "patience": 4},
    )  # fmt: skip
    assert made.model == base and made.validation_file == held_out
    assert made.hyperparameters.to_dict() == numbers
    assert made.method and made.method.supervised and made.method.supervised.hyperparameters
    job, usual = (
        world.live.client.get(f"/v1/jobs/{each.id}", headers={"Authorization": f"Bearer {world.live.key}"}).json()
        for each in (made, plain)
    )
    spec = job["resolved_spec"]
    assert (job["type"], spec["budget"]["epochs"], spec["batch_size"], spec["patience"]) == ("finetune", 3.0, 8, 4)
    assert (spec["model"], spec["validation_dataset"], spec["suffix"]) == (base, held_out, "mine")
    assert spec["optimizer"]["learning_rate"] == usual["resolved_spec"]["optimizer"]["learning_rate"] / 2
    assert usual["resolved_spec"]["task"]["name"] == "classification"
    assert plain.hyperparameters.learning_rate_multiplier == 1.0


def test_a_backbone_by_its_name_trains_from_scratch(world: World) -> None:
    made = world.openai().fine_tuning.jobs.create(
        model="text-tiny", training_file=world.dataset(), method=PRETRAIN, extra_body=MLM
    )
    assert made.model == "text-tiny"


def test_a_job_of_the_other_door_is_the_same_job_here(world: World) -> None:
    client, key = world.openai(), {"Authorization": f"Bearer {world.live.key}"}
    body = {"type": "pretrain", "dataset": world.dataset(), **MLM, "optimizer": {"learning_rate": 0.001}}
    other = world.live.client.post("/v1/jobs", json=body, headers=key).json()
    here = client.fine_tuning.jobs.retrieve(other["id"])
    assert here.training_file == body["dataset"] and here.hyperparameters.learning_rate_multiplier is None
    assert [each.id for each in client.fine_tuning.jobs.list()] == [other["id"]]
    assert client.fine_tuning.jobs.cancel(other["id"]).status == "cancelled"
    assert world.live.client.get(f"/v1/jobs/{other['id']}", headers=key).json()["status"] == "cancelled"


def test_a_job_that_trains_nothing_is_none_of_this_door(world: World) -> None:
    client = world.openai()
    client.files.create(file=("a.txt", b"hello"), purpose="pretrain")
    key = {"Authorization": f"Bearer {world.live.key}"}
    [ingest] = world.live.client.get("/v1/jobs?type=ingest", headers=key).json()["data"]
    assert list(client.fine_tuning.jobs.list()) == []
    for call in (client.fine_tuning.jobs.retrieve, client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.pause):
        with pytest.raises(openai.NotFoundError):
            call(ingest["id"])
    assert world.live.client.get(f"/v1/jobs/{ingest['id']}", headers=key).json()["status"] == "queued"


def test_a_training_is_paused_resumed_and_cancelled(world: World) -> None:
    jobs = world.openai().fine_tuning.jobs
    made = pretraining(world, world.dataset())
    assert jobs.pause(made.id).status == "paused"
    assert jobs.resume(made.id).status == "queued"
    ticket = world.worker.claim(made.id)
    assert ticket is not None
    assert jobs.pause(made.id).status == "running"  # until the worker has let go
    world.worker.post(ticket, "release", reason="pause")
    assert jobs.retrieve(made.id).status == "paused"
    assert jobs.cancel(made.id).status == "cancelled"
    assert jobs.cancel(made.id).status == "cancelled"
    with pytest.raises(openai.ConflictError) as caught:
        jobs.resume(made.id)
    assert caught.value.code == "invalid_state"


def test_events_and_checkpoints_page_beyond_one_page(world: World) -> None:
    jobs = world.openai().fine_tuning.jobs
    made = pretraining(world, world.dataset())
    ticket = world.worker.claim(made.id)
    assert ticket is not None
    world.worker.post(ticket, "events", events=[
        {**message_event(seq, f"note_{seq}"), "level": "warning" if seq == 5 else "info"} for seq in range(1, 8)
    ])  # fmt: skip
    for step in (1, 2, 3):
        world.worker.checkpoint(ticket, step)
    events = list(jobs.list_events(made.id, limit=3))
    assert len({event.id for event in events}) == len(events) == 2 + 7 + 3  # queued, running, messages, checkpoints
    assert {event.object for event in events} == {"fine_tuning.job.event"}
    assert [event.data["code"] for event in events if event.level == "warn"] == ["note_5"]  # type: ignore[index]
    kept = list(jobs.checkpoints.list(made.id, limit=1))
    assert [each.step_number for each in kept] == [3, 2, 1]
    assert {each.fine_tuning_job_id for each in kept} == {made.id}
    assert kept[0].object == "fine_tuning.job.checkpoint" and kept[0].fine_tuned_model_checkpoint == kept[0].id


def test_a_failed_training_says_why(world: World) -> None:
    made = pretraining(world, world.dataset())
    ticket = world.worker.claim(made.id)
    assert ticket is not None
    error = {"class": "data", "code": "leakage", "message": "Row 3 is in both.", "param": "test_dataset"}
    world.worker.post(ticket, "fail", error=error)
    failed = world.openai().fine_tuning.jobs.retrieve(made.id)
    assert failed.status == "failed" and failed.error and failed.result_files == []
    assert (failed.error.code, failed.error.message, failed.error.param) == (
        "leakage", "Row 3 is in both.", "test_dataset",
    )  # fmt: skip
    with pytest.raises(openai.NotFoundError):
        world.openai().files.retrieve("res_" + made.id.removeprefix("job_"))


def test_trainings_page_and_are_found_by_their_metadata(world: World) -> None:
    dataset, client = world.dataset(), world.openai()
    made = [pretraining(world, dataset, seed=at, metadata={"odd": str(at % 2)}).id for at in range(5)]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == made[::-1]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=1, metadata={"odd": "1"})] == [made[3], made[1]]
    assert [job.id for job in client.fine_tuning.jobs.list(after=made[3], limit=2).data] == [made[2], made[1]]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "mdl_unknown"}, "model", "not_found"),
    ({"model": "text-unheard-of"}, "model", "invalid_value"),
    ({"training_file": "ds_unknown"}, "training_file", "not_found"),
    ({"training_file": "file-abc"}, "training_file", "invalid_format"),
    ({"validation_file": "ds_unknown"}, "validation_file", "not_found"),
    ({"method": {"type": "dpo", "dpo": {}}}, "method.type", "invalid_value"),
    ({"method": {"type": "supervised", "pretrain": {}}}, "method.pretrain", "not_for_this_method"),
    ({"method": {"type": "pretrain"}, "task": {"name": "classification"}, **MLM}, "task", "unknown_field"),
    ({"method": {"type": "pretrain"}}, "objective", "missing_field"),
    ({"method": {"type": "supervised", "supervised": {"hyperparameters": {"beta": 1}}}},
     "method.supervised.hyperparameters.beta", "unknown_field"),
    ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "out_of_range"),
    ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs", "type_error"),
    ({"hyperparameters": {"n_epochs": 2}, "budget": {"steps": 3}}, "hyperparameters.n_epochs", "given_twice"),
    ({"hyperparameters": {"batch_size": 2}, "batch_size": 3}, "hyperparameters.batch_size", "given_twice"),
    ({"hyperparameters": {"n_epochs": 2}, "task": {"name": "classification", "mode": "linear_probe"}},
     "hyperparameters.n_epochs", "not_for_this_task"),
    ({"hyperparameters": {"learning_rate_multiplier": 1.5}, "task": {"name": "classification", "mode": "knn"}},
     "hyperparameters.learning_rate_multiplier", "not_for_this_task"),
    ({"hyperparameters": {"learning_rate_multiplier": 1.5}, "optimizer": {"learning_rate": 0.1}},
     "hyperparameters.learning_rate_multiplier", "given_twice"),
    ({"hyperparameters": {}, "method": {"type": "supervised", "supervised": {"hyperparameters": {}}}},
     "hyperparameters", "given_twice"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", "out_of_range"),
    ({"suffix": "x" * 65}, "suffix", "out_of_range"),
    ({"seed": -1}, "seed", "out_of_range"),
    ({"dataset": "ds_a"}, "dataset", "unknown_field"),
    ({"surprise": 1}, "surprise", "unknown_field"),
    ({"task": {"name": "unheard_of"}}, "task", "invalid_value"),
]  # fmt: skip


def test_a_request_that_cannot_run_is_refused_at_the_field_that_was_written(world: World) -> None:
    dataset, client = world.dataset(), world.openai()
    for change, param, code in REFUSED:
        body: dict[str, Any] = {"model": "auto", "training_file": dataset, **change}
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.post("/fine_tuning/jobs", cast_to=object, body=body)
        assert (caught.value.param, caught.value.code) == (param, code), (change, caught.value.message)
        assert "given was" not in caught.value.message or param.rpartition(".")[2] in caught.value.message
    assert list(client.fine_tuning.jobs.list()) == []
