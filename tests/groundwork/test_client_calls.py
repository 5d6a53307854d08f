"""Both clients against a real API and a real inference role: every resource, what a person would do with it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from groundwork import (
    Conflict,
    DatasetInvalid,
    GroundworkError,
    JobFailed,
    NotFound,
    Unauthorized,
    Unprocessable,
    WaitTimeout,
)
from tests.app.jobs_world import Worker, message_event, metrics_event, pretrain_body, progress_event
from tests.app.serving import Serving, serving
from tests.groundwork.driven import Opened, fields, opener

__all__ = ["serving"]


@pytest.fixture(params=["sync", "async"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    with opener(request.param) as made:
        yield made


@pytest.fixture
def gw(opened: Opened, serving: Serving) -> Any:
    """A client with the first project's key."""
    return opened(serving.url, serving.key, retries=2)


@pytest.fixture
def worker(serving: Serving) -> Iterator[Worker]:
    with httpx2.Client(base_url=serving.url, timeout=60) as plain:
        yield Worker(plain)  # type: ignore[arg-type]


def started(gw: Any, serving: Serving, worker: Worker, **more: Any) -> tuple[Any, dict[str, Any]]:
    """A pretraining job and the ticket of the worker that has it."""
    job = gw.jobs.create(**pretrain_body(serving.datasets["text"], backbone="text-tiny", **more))
    ticket = worker.claim(job.id)
    assert ticket is not None
    return job, ticket


def test_a_dataset_goes_up_is_found_and_goes_away(gw: Any, tmp_path: Path) -> None:
    path, told = tmp_path / "pool.csv", []
    path.write_text("body,label\nhello there,a\n")
    made = gw.datasets.upload(
        path, name="mine", columns={"text": "body"}, metadata={"who": "me"}, progress=lambda *seen: told.append(seen)
    )
    assert (made.name, made.columns, made.metadata) == ("mine", {"text": "body"}, {"who": "me"})
    assert made.status == "uploaded"
    assert told == [(path.stat().st_size,) * 2] and made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert fields(gw.datasets.get(made.id))["id"] == made.id == next(iter(gw.datasets.list(limit=1))).id
    assert made.download(tmp_path / "back").read_bytes() == path.read_bytes()
    assert made.download(tmp_path / "new" / "folder.csv").read_bytes() == path.read_bytes()
    (tmp_path / "there").mkdir()
    assert made.download(tmp_path / "there") == tmp_path / "there" / "pool.csv"
    with pytest.raises(Conflict, match="not_ready") as caught:
        made.profile()
    assert caught.value.status == 409 and caught.value.request_id
    assert made.delete()["deleted"] is True
    with pytest.raises(NotFound, match=made.id):
        made.refresh()
    assert not list(tmp_path.rglob("*.part"))


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(gw: Any, tmp_path: Path) -> None:
    gw.uploads.part_bytes = 1000
    path, told, begun = tmp_path / "pool.txt", [], []
    path.write_bytes(b"twelve bytes" * 500 + b"and a rest")  # parts that are equal to others among them
    made = gw.datasets.upload(path, progress=lambda *seen: told.append(seen), began=begun.append, metadata={"a": "b"})
    assert told == [(min(n, 6010), 6010) for n in range(1000, 8000, 1000)]
    assert made.bytes == 6010 and made.metadata == {"a": "b"} and made.filename == "pool.txt"
    assert made.download(tmp_path / "back").read_bytes() == path.read_bytes()
    upload = gw.uploads.get(begun[0])
    assert upload.status == "completed" and gw.datasets.upload(path, resume=begun[0]).id == made.id


def test_an_upload_that_is_resumed_sends_only_what_is_missing(gw: Any, opened: Opened, tmp_path: Path) -> None:
    gw.uploads.part_bytes = 1000
    path = tmp_path / "pool.txt"
    path.write_bytes(bytes(n % 251 for n in range(4500)))
    upload = gw.uploads.create("pool.txt", 4500, "text/plain")
    part = path.read_bytes()[2000:3000]
    form = {"files": {"data": ("part", part, "text/plain")}}
    durable = gw.request("POST", f"/uploads/{upload.id}/parts", **form)
    made = gw.datasets.upload(path, resume=upload.id)
    assert made.bytes == 4500 and made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert made.download(tmp_path / "back").read_bytes() == path.read_bytes()
    assert durable["sha256"] == hashlib.sha256(part).hexdigest()
    other = gw.uploads.create("pool.txt", 4499, "text/plain")
    with pytest.raises(GroundworkError, match="another file, or it changed"):
        gw.datasets.upload(path, resume=other.id)
    assert gw.uploads.cancel(other.id).status == "cancelled"


def test_a_folder_goes_up_as_an_archive_and_an_empty_one_does_not(gw: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for name in ("cat/1.txt", "dog/2.txt"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(name)
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "3.txt").write_text("not for others")
    (folder / "dog" / "out").symlink_to("/etc/passwd")
    with pytest.raises(GroundworkError, match="out is a link"):
        gw.datasets.upload(folder)
    (folder / "dog" / "out").unlink()
    first, again = gw.datasets.upload(folder), gw.datasets.upload(folder)
    assert first.filename == "pets.zip" and first.sha256 == again.sha256
    with zipfile.ZipFile(first.download(tmp_path)) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "cat/1.txt": "cat/1.txt", "dog/2.txt": "dog/2.txt",
        }  # fmt: skip
    (tmp_path / "empty").mkdir()
    with pytest.raises(GroundworkError, match="holds no files"):
        gw.datasets.upload(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        gw.datasets.upload(tmp_path / "nowhere.txt")


def test_what_the_server_refuses_names_the_field_in_one_line(gw: Any, serving: Serving, tmp_path: Path) -> None:
    with pytest.raises(Unprocessable) as caught:
        gw.jobs.create(**pretrain_body(serving.datasets["text"], budget={"steps": -1}))
    assert caught.value.param == "budget.steps" and "\n" not in str(caught.value)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(Unprocessable) as refused:
        gw.datasets.upload(tmp_path / "a.txt", modality="smell")
    assert refused.value.param == "modality" and "known:" in refused.value.message


def test_a_wrong_key_is_told_and_a_foreign_thing_is_missing(opened: Opened, serving: Serving) -> None:
    with pytest.raises(Unauthorized, match="invalid_api_key"):
        list(opened(serving.url, "gw_wrong").jobs.list())
    with pytest.raises(NotFound):
        opened(serving.url, serving.other_key).datasets.get(serving.datasets["text"])


def test_an_id_cannot_lead_to_another_path(gw: Any) -> None:
    for id in ("../jobs", "a/../../healthz", "x?limit=1", "%2e%2e", "x#y"):
        with pytest.raises(NotFound):
            gw.datasets.get(id)


def test_waiting_for_a_dataset_ends_where_it_is_ready_invalid_or_too_slow(
    gw: Any, serving: Serving, worker: Worker, tmp_path: Path
) -> None:
    assert gw.datasets.wait(serving.datasets["text"]).status == "ready"
    assert gw.datasets.get(serving.datasets["text"]).profile()["rows"] > 0
    (tmp_path / "bad.csv").write_text("text\n\n")
    made = gw.datasets.upload(tmp_path / "bad.csv")
    with pytest.raises(WaitTimeout, match=f"{made.id} is still") as late:
        made.wait(timeout=0.2)
    assert isinstance(late.value, TimeoutError)
    ticket = worker.claim(made.job)
    assert ticket is not None
    error = {"class": "data", "code": "missing_field", "message": "the row has no `text`", "param": "bad.csv:2"}
    assert worker.post(ticket, "fail", error=error).status_code == 200
    with pytest.raises(DatasetInvalid, match=r"bad\.csv:2: the row has no `text` \[missing_field\]") as caught:
        made.wait()
    (row,) = caught.value.rows
    assert (row.file, row.row, row.code) == ("bad.csv", 2, "missing_field") and caught.value.dataset.id == made.id


def test_a_job_is_followed_to_its_model(gw: Any, serving: Serving, worker: Worker, tmp_path: Path) -> None:
    job, ticket = started(gw, serving, worker, metadata={"who": "follow"}, budget={"steps": 100})
    assert job.status == "queued" and job.resolved_spec["budget"]["steps"] == 100 and job.progress is None
    assert [each.id for each in gw.jobs.list(metadata={"who": "follow"}, limit=1)] == [job.id]
    with pytest.raises(GroundworkError, match="is running and has made no model"):
        job.refresh().model()
    with pytest.raises(WaitTimeout):
        job.wait(timeout=0.1)
    worker.post(ticket, "events", events=[
        metrics_event(1, 50, **{"train/loss": 2.5, "train/odd": "nan"}), progress_event(2, 50),
        message_event(3, "note"),
    ])  # fmt: skip
    worker.post(ticket, "logs", offset=0, text="first line\n")
    worker.checkpoint(ticket, 50)
    running = job.refresh()
    assert running.progress.percent == 50.0 and running.progress.stage == "training" and not running.ended
    assert running.metrics(["train/loss"]) == {"train/loss": ([50], [2.5])}
    assert str(running.metrics()["train/odd"].values[0]) == "nan"
    assert [each.step for each in running.checkpoints()] == [50] and list(running.samples()) == []
    assert "".join(running.logs()) == "first line\n" == "".join(running.logs(attempt=1))
    assert worker.complete(ticket).json() == {"status": "succeeded"}
    seen: list[str] = []
    done = job.wait(on_change=lambda state: seen.append(state.status))
    assert seen == ["succeeded"] and done.final_metrics == {"loss": 1.0} and len(done.attempts) == 1
    codes = [event.code for event in done.events()]
    assert codes[0] == "queued" and "note" in codes and codes[-1] == "succeeded"
    assert [event.code for event in gw.jobs.events(job.id, order="desc", limit=2)] == codes[:-3:-1]
    model = done.model()
    assert model.id == done.model_id and model.lineage["job"] == job.id and model.metrics == {"loss": 1.0}
    assert {file.path for file in done.files()} >= {"config.json"}
    assert all(path.is_relative_to(tmp_path / "kept") for path in done.download_files(tmp_path / "kept"))
    assert (tmp_path / "kept" / "config.json").read_bytes() == b"bytes"


def test_a_live_stream_tells_the_past_then_ends_with_the_job(gw: Any, serving: Serving, worker: Worker) -> None:
    job, ticket = started(gw, serving, worker)
    live = iter(job.stream())
    assert [next(live).event.code for _ in range(2)] == ["queued", "running"]
    worker.post(ticket, "events", events=[message_event(1, "told"), metrics_event(2, 5, **{"train/loss": 1.5}),
                                          progress_event(3, 5)])  # fmt: skip
    told = next(live)
    assert told.name == "job.event" and told.event.message == "told" and told.progress is None
    step = next(live)
    assert step.name == "progress" and step.progress.step == 5 and step.metrics["train/loss"] == 1.5
    worker.complete(ticket)
    rest = list(live)
    assert rest[-1].name == "done" and rest[-1].status == "succeeded"
    after = list(job.stream(after=told["id"]))
    assert [each.event.code for each in after if each.event][-1] == "succeeded"
    assert "told" not in [each.event.code for each in after if each.event]


def test_jobs_are_steered_and_their_end_is_told(gw: Any, serving: Serving, worker: Worker) -> None:
    queued = gw.jobs.create(**pretrain_body(serving.datasets["text"]))
    assert queued.pause().status == "paused" and queued.resume().status == "queued"
    assert queued.cancel().status == "cancelled" == queued.cancel().status
    with pytest.raises(Conflict, match="invalid_state"):
        queued.resume()
    with pytest.raises(JobFailed, match="ended cancelled"):
        queued.wait()
    job, ticket = started(gw, serving, worker)
    error = {"class": "data", "code": "leakage", "message": "Row 3 is in both.", "param": "test_dataset"}
    worker.post(ticket, "fail", error=error)
    with pytest.raises(JobFailed, match=r"ended failed: Row 3 is in both\. \[leakage\]") as caught:
        job.wait()
    assert caught.value.job.error.param == "test_dataset"
    assert [event.name for event in job.stream()][-1] == "done"
    assert gw.jobs.estimate(**pretrain_body(serving.datasets["text"]))["memory_bytes"] > 0


def test_lists_go_on_beyond_a_page_and_survive_deleting_while_reading(gw: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    made = [gw.datasets.upload(tmp_path / "a.txt", modality="protein").id for _ in range(5)]
    gw.datasets.page = 2
    assert [each.id for each in gw.datasets.list(limit=3, modality="protein")] == made[:1:-1]
    assert list(gw.datasets.list(limit=0)) == []
    gone = []
    for each in gw.datasets.list(modality="protein"):
        each.delete()
        gone.append(each.id)
    assert gone == made[::-1]


def test_a_model_is_asked_and_comes_down(gw: Any, serving: Serving, tmp_path: Path) -> None:
    model = gw.models.get(serving.models["topics"])
    texts = [f"a text of {n} words" for n in range(3)]
    vectors = model.embed(texts)
    assert [len(vector) for vector in vectors] == [model.embedding_dimensions] * 3
    plain = gw.request("POST", "/embeddings", json={"model": model.id, "input": texts})
    assert vectors == [pytest.approx(row["embedding"], abs=1e-6) for row in plain["data"]]
    (short,) = gw.embed(model.id, texts[0], dimensions=4)
    assert len(short) == 4 and sum(value * value for value in short) == pytest.approx(1, abs=1e-5)
    (tokens,) = gw.embed(model.id, [5, 6, 7])
    assert len(tokens) == model.embedding_dimensions
    answers = model.predict(texts)
    assert [each["index"] for each in answers] == [0, 1, 2]
    assert {each["label"] for each in answers} <= set(model.classes)
    archive = model.download(tmp_path / "model.zip")
    with zipfile.ZipFile(archive) as packed:
        assert "model.safetensors" in packed.namelist()
    kept = model.download_files(tmp_path / "model")
    assert {path.name for path in kept} >= {"config.json", "model.safetensors"}
    assert {file.sha256 for file in model.files()} == {hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def test_more_inputs_than_one_request_takes_are_several_requests(gw: Any, serving: Serving) -> None:
    texts = [f"text {n % 5}" for n in range(600)]
    vectors = gw.embed(serving.models["text"], texts)
    assert len(vectors) == 600 and vectors[7] == pytest.approx(vectors[2], abs=1e-5)
    answers = gw.predict(serving.models["topics"], texts)
    assert [each["index"] for each in answers] == list(range(600))


def test_a_picture_is_asked_about_by_its_path(gw: Any, serving: Serving, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "red.png"
    Image.new("RGB", (16, 16), "red").save(path)
    by_path, by_item = gw.embed(serving.models["image"], [path, {"image": path}])
    assert by_path == by_item and any(by_path)
    with pytest.raises(GroundworkError, match="neither a picture nor a sound"):
        gw.embed(serving.models["image"], [tmp_path / "note.txt"])


def test_an_export_is_made_where_there_is_none_yet(gw: Any, serving: Serving, worker: Worker, tmp_path: Path) -> None:
    id = serving.models["text"]
    job = gw.models.export(id, "hf")
    ticket = worker.claim(job.id)
    assert ticket is not None and ticket["spec"]["format"] == "hf"
    error = {"class": "user", "code": "export_unsupported", "message": "No class computes this.", "param": "format"}
    worker.post(ticket, "fail", error=error)
    with pytest.raises(JobFailed, match="export_unsupported"):
        job.wait()


def test_a_model_is_renamed_imported_and_deleted(gw: Any, serving: Serving, worker: Worker, tmp_path: Path) -> None:
    from tests.app import registered

    model = gw.models.get(registered.model(serving.platform, serving.project_id, serving.folders["text"], "first"))
    assert model.update(name="second", metadata={"a": "b"}).name == "second"
    assert (model.refresh().metadata, next(iter(gw.models.list(limit=1))).id) == ({"a": "b"}, model.id)
    assert model.delete()["deleted"] is True
    folder, told = tmp_path / "bert", []
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    job = gw.models.import_(folder, name="mine", least_share=0.9, progress=lambda *seen: told.append(seen))
    assert job.type == "import" and job.spec["name"] == "mine" and job.spec["least_share"] == 0.9
    assert told[-1][0] == told[-1][1] > 0
    job.cancel()
    with pytest.raises(GroundworkError, match="hub_not_allowed"):
        gw.models.import_("google-bert/bert-base-uncased")
    with pytest.raises(FileNotFoundError, match="owner/name"):
        gw.models.import_("weights.zip")


def test_the_catalogue_keys_projects_and_receivers(gw: Any, serving: Serving) -> None:
    assert {each["name"] for each in gw.catalogue.objectives(modality="text")} >= {"mlm", "next_token"}
    assert "classification" in {each["name"] for each in gw.catalogue.tasks()}
    assert any(each["name"] == "text-tiny" for each in gw.catalogue.backbones())
    key = gw.keys.create("laptop", scopes=["read"])
    assert key.key.startswith("gw_") and key.key not in repr(key) and gw.keys.get(key.id).key is None
    fresh = gw.keys.rotate(key.id, overlap_seconds=0)
    assert fresh.key != key.key and {each.id for each in gw.keys.list()} >= {fresh.id}
    assert gw.keys.revoke(fresh.id)["deleted"] is True
    assert {each.name for each in gw.projects.list()} == {"first", "second"}
    assert next(iter(gw.projects.audit_log(limit=1)))["action"].startswith("api_key.")
    assert list(gw.webhooks.list()) == []
    with pytest.raises(GroundworkError):
        gw.webhooks.create("http://127.0.0.1/hook", ["job.succeeded"])
