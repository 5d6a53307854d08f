"""Jobs made of jobs: a label-efficiency job whose arms are jobs, moved as one, and never trained twice."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import Unprocessable
from app.jobs import label_efficiency, limits
from app.platform import Platform
from app.reaper import Conductor
from ssl_core.tasks import TASKS
from tests.app.conftest import Api
from tests.app.jobs_world import Worker, entry, pretrain_body, ready_dataset

ARMS = ["probe", "scratch"]


def look(platform: Platform) -> None:
    """What the background thread does, now."""
    Conductor(platform, limits.of(platform.settings)).look()


class World:
    """A pretrained model, labelled rows and test rows, and a worker."""

    def __init__(self, api: Api) -> None:
        self.api, self.worker = api, Worker(api.anonymous)
        pool = ready_dataset(api.platform, api.project_id)
        job = api.client.post("/v1/jobs", json=pretrain_body(pool)).json()
        assert self.worker.complete(self.worker.claim(job["id"])).status_code == 200  # type: ignore[arg-type]
        self.model = self.get(job["id"])["result"]["model"]
        self.rows = ready_dataset(api.platform, api.project_id, b"labelled")
        self.test = ready_dataset(api.platform, api.project_id, b"test")

    def get(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.client.get(f"/v1/jobs/{job_id}").json()
        return found

    def body(self, **more: Any) -> dict[str, Any]:
        return {
            "type": "label_efficiency", "model": self.model, "dataset": self.rows, "test_dataset": self.test,
            "labels": [5, 10], "seeds": 2, "arms": ARMS, **more,
        }  # fmt: skip

    def create(self, **more: Any) -> dict[str, Any]:
        reply = self.api.client.post("/v1/jobs", json=self.body(**more))
        assert reply.status_code == 201, reply.text
        made: dict[str, Any] = reply.json()
        return made

    def parts(self, job_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.client.get(f"/v1/jobs?part_of={job_id}&limit=100").json()["data"]
        return found

    def finish(self, ticket: dict[str, Any], path: str = "scores.json") -> None:
        """Deliver a part: its test score, or the report."""
        assert self.worker.put(ticket, f"artifact/{path}", b"made").status_code in (200, 201)
        metrics = {"test/accuracy": 0.5 + ticket["spec"].get("seed", 0) / 10, "data/training_rows": 10.0}
        done = self.worker.post(ticket, "complete", files=[entry(path, b"made")], metrics=metrics, summary={})
        assert done.status_code == 200, done.text

    def finish_all(self, job_id: str) -> int:
        """Work like a worker until nothing waits; returns how many parts were run."""
        count = 0
        while True:
            look(self.api.platform)
            ticket = self.worker.claim()
            if ticket is None:
                return count
            count += 1
            self.finish(ticket, "report.html" if ticket["spec"]["type"] == "report" else "scores.json")


@pytest.fixture
def world(api_everywhere: Api) -> World:
    return World(api_everywhere)


def test_every_point_is_a_job_and_the_last_one_draws_the_report(world: World) -> None:
    job = world.create()
    assert job["status"] == "queued"
    parts = world.parts(job["id"])
    assert len(parts) == 8, "two arms, two counts, two seeds"
    assert {(p["spec"]["task"]["mode"], p["spec"]["initialization"]) for p in parts} == {
        ("linear_probe", "pretrained"), ("full", "random")}  # fmt: skip
    assert world.worker.claim(job["id"]) is None, "no worker can take the parent itself"
    assert world.finish_all(job["id"]) == 9
    look(world.api.platform)
    done = world.get(job["id"])
    assert done["status"] == "succeeded"
    assert done["result"]["files"] == ["report.html"]
    report = next(p for p in world.parts(job["id"]) if p["type"] == "report")
    points = report["spec"]["points"]
    assert len(points) == 8
    assert {point["score"] for point in points} == {0.5, 0.6}


def test_the_report_is_downloaded_from_the_parent(world: World) -> None:
    job = world.create()
    assert world.api.client.get(f"/v1/jobs/{job['id']}/files").json()["data"] == []
    world.finish_all(job["id"])
    look(world.api.platform)
    (file,) = world.api.client.get(f"/v1/jobs/{job['id']}/files").json()["data"]
    assert (file["path"], file["bytes"]) == ("report.html", 4)
    got = world.api.client.get(file["content_url"])
    assert got.content == b"made"
    assert got.headers["content-disposition"].startswith("attachment")
    assert world.api.client.get(f"/v1/jobs/{job['id']}/files/other.html").status_code == 404
    assert world.api.stranger.get(file["content_url"]).status_code == 404


def test_parts_are_not_listed_or_counted_on_their_own(world: World) -> None:
    job = world.create()
    listed = world.api.client.get("/v1/jobs?status=queued").json()["data"]
    assert [each["id"] for each in listed] == [job["id"]]


def test_one_more_number_of_labels_trains_only_that(world: World) -> None:
    first = world.create()
    world.finish_all(first["id"])
    second = world.create(labels=[5, 10, 20])
    assert len(world.parts(second["id"])) == 12
    assert world.finish_all(second["id"]) == 5, "four new trainings and the report"
    look(world.api.platform)
    assert world.get(second["id"])["status"] == "succeeded"


def test_a_running_part_makes_the_parent_run_and_counts_as_progress(world: World) -> None:
    job = world.create()
    ticket = world.worker.claim()
    assert ticket is not None
    look(world.api.platform)
    assert world.get(job["id"])["status"] == "running"
    world.finish(ticket)
    look(world.api.platform)
    progress = world.get(job["id"])["progress"]
    assert (progress["step"], progress["total_steps"]) == (1, 8)
    assert 10 < progress["percent"] < 12


def test_a_cancel_takes_all_parts_along_and_what_was_done_is_used_again(world: World) -> None:
    job = world.create()
    done, running = world.worker.claim(), world.worker.claim()
    assert done is not None and running is not None
    world.finish(done)
    look(world.api.platform)
    assert world.api.client.post(f"/v1/jobs/{job['id']}/cancel").status_code == 202
    assert world.worker.claim() is None
    look(world.api.platform)
    assert world.get(job["id"])["status"] == "cancelling"
    assert world.worker.post(running, "release", reason="cancel").status_code == 200
    look(world.api.platform)
    assert world.get(job["id"])["status"] == "cancelled"
    states = sorted(part["status"] for part in world.parts(job["id"]))
    assert states == ["cancelled"] * 7 + ["succeeded"]
    again = world.create()
    assert world.finish_all(again["id"]) == 8, "seven trainings and the report"


def test_a_pause_and_a_resume_are_those_of_the_parts(world: World) -> None:
    job = world.create()
    running = world.worker.claim()
    assert running is not None
    look(world.api.platform)
    assert world.api.client.post(f"/v1/jobs/{job['id']}/pause").status_code == 202
    assert world.worker.claim() is None
    assert world.worker.post(running, "release", reason="pause").status_code == 200
    look(world.api.platform)
    assert world.get(job["id"])["status"] == "paused"
    assert world.api.client.post(f"/v1/jobs/{job['id']}/resume").status_code == 202
    assert world.finish_all(job["id"]) == 9
    look(world.api.platform)
    assert world.get(job["id"])["status"] == "succeeded"


def test_a_leak_that_a_part_finds_is_the_error_of_the_whole(world: World) -> None:
    job = world.create()
    ticket = world.worker.claim()
    assert ticket is not None
    error = {"class": "data", "code": "leakage", "message": "row 3 is row 9.", "param": "test_dataset"}
    assert world.worker.post(ticket, "fail", error=error).status_code == 200
    look(world.api.platform)
    told = world.get(job["id"])["error"]
    assert (told["code"], told["param"]) == ("leakage", "test_dataset")
    assert "row 3 is row 9." in told["message"]


def test_every_arm_is_the_task_with_settings_of_its_own(world: World) -> None:
    job = world.create(arms=["probe", "knn", "self_training", "full"], labels=[5], seeds=1)
    specs = [part["resolved_spec"] for part in world.parts(job["id"])]
    assert {(spec["task"]["mode"], spec["task"]["self_training"]) for spec in specs} == {
        ("linear_probe", False), ("knn", False), ("linear_probe", True), ("full", False)}  # fmt: skip
    pretraining = world.api.client.get(f"/v1/models/{world.model}").json()["lineage"]["datasets"][0]["id"]
    assert {spec["pool"] for spec in specs} == {pretraining}


@pytest.mark.parametrize(
    ("task", "arm"),
    [("translation", "probe"), ("translation", "lora"), ("contacts", "lora"), ("tagging", "knn"),
     ("regression", "self_training")],
)  # fmt: skip
def test_an_arm_that_a_task_cannot_be_is_refused(task: str, arm: Any) -> None:
    with pytest.raises(Unprocessable) as caught:
        label_efficiency._task_of(TASKS[task](), arm)
    assert (caught.value.code, caught.value.param) == ("arm_unavailable", "arms")
    assert f"leave the arm `{arm}` out" in caught.value.message


def test_parts_know_the_pool_of_their_model_and_whether_leaks_are_allowed(world: World) -> None:
    world.create(allow_leakage=True)
    tickets = [world.worker.claim() for _ in range(8)]
    pools = {}
    for ticket in tickets:
        assert ticket is not None
        assert ticket["spec"]["allow_leakage"] is True
        pools[ticket["spec"]["initialization"]] = [each["id"] for each in ticket["inputs"] if each["role"] == "pool"]
    lineage = world.api.client.get(f"/v1/models/{world.model}").json()["lineage"]["datasets"]
    assert pools == {"pretrained": [lineage[0]["id"]], "random": []}


def test_a_part_that_fails_ends_the_whole_and_is_named(world: World) -> None:
    job = world.create()
    ticket = world.worker.claim()
    assert ticket is not None
    error = {"class": "data", "code": "no_classes", "message": "no labels.", "param": "dataset"}
    assert world.worker.post(ticket, "fail", error=error).status_code == 200
    look(world.api.platform)
    failed = world.get(job["id"])
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "part_failed"
    assert ticket["job_id"] in failed["error"]["message"] and "no labels." in failed["error"]["message"]
    assert world.worker.claim() is None


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"labels": [5, 60]}, "labels"),
        ({"labels": []}, "labels"),
        ({"labels": [5, 5]}, "labels"),
        ({"arms": ["magic"]}, "arms"),
        ({"arms": ["public"]}, ""),
        ({"seeds": 0}, "seeds"),
        ({"seeds": 20, "labels": list(range(1, 13)), "arms": ["full", "probe", "scratch"]}, "seeds"),
        ({"model": "mdl_missing"}, "model"),
        ({"pool": "ds_missing"}, "pool"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_field(world: World, more: dict[str, Any], param: str) -> None:
    body = world.body(**more)
    if "pool" in more:
        body["arms"] = ["classical"]
    reply = world.api.client.post("/v1/jobs", json=body)
    assert reply.status_code == 422, reply.text
    assert param in (reply.json()["error"]["param"] or "")
    assert world.worker.claim() is None, "nothing of it was queued"


def test_the_arm_of_adapters_trains_them_on_the_pretrained_model(world: World) -> None:
    world.create(arms=["lora"], labels=[5], seeds=1)
    ticket = world.worker.claim()
    assert ticket is not None
    spec = ticket["spec"]
    assert (spec["task"]["mode"], spec["task"]["rank"], spec["initialization"]) == ("lora", 8, "pretrained")
    assert {each["role"] for each in ticket["inputs"]} >= {"model", "pool"}


def test_adapters_that_do_not_fit_the_model_are_refused_at_once(world: World) -> None:
    task = {"name": "classification", "rank": 1024}
    reply = world.api.client.post("/v1/jobs", json=world.body(arms=["lora"], task=task))
    assert reply.status_code == 422, reply.text
    assert reply.json()["error"]["param"] == "task.rank"
    assert world.worker.claim() is None, "nothing of it was queued"


def test_the_test_rows_are_not_the_training_rows(world: World) -> None:
    reply = world.api.client.post("/v1/jobs", json=world.body(test_dataset=world.rows))
    assert reply.status_code == 422
    assert reply.json()["error"]["param"] == "test_dataset"


def test_the_classical_arm_reads_the_pool_that_the_model_was_pretrained_on(world: World) -> None:
    job = world.create(arms=["classical"], labels=[5], seeds=1)
    (part,) = world.parts(job["id"])
    pretraining = world.api.client.get(f"/v1/models/{world.model}").json()
    assert part["type"] == "baseline"
    assert part["spec"]["pool"] in str(pretraining)
