"""`python -m ssl_core.run DIR` as a supervisor starts it: real processes, real signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_core.backbones import EncoderSpec
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.spec import ModelFacts
from tests.ssl_core import datasets

ROOT = Path(__file__).parents[2]
BASE = ModelFacts(id="mdl_a", modality=datasets.TEXT, backbone=EncoderSpec.model_validate(datasets.TINY_TEXT))
PRETRAIN: dict[str, Any] = {
    "type": "pretrain", "dataset": "ds_toy", "objective": {"name": "mlm"}, "modality": datasets.TEXT,
    "backbone": datasets.TINY_TEXT, "budget": {"steps": 300}, "batch_size": 8, "checkpoint_every_steps": 40,
}  # fmt: skip
FINETUNE: dict[str, Any] = {
    "type": "finetune", "dataset": "ds_toy", "task": {"name": "classification"}, "model": "mdl_a",
    "budget": {"steps": 30},
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return datasets.text_dataset(tmp_path_factory.mktemp("pool") / "data")


@pytest.fixture(scope="module")
def base_model(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "run"
    datasets.order(folder, {**PRETRAIN, "budget": {"steps": 20}}, {"ds_toy": pool})
    assert run(folder, FileContext(folder))["status"] == "succeeded"
    return folder / "artifact"


def start(workdir: Path, **environment: str) -> subprocess.Popen[bytes]:
    log = (workdir / "log.txt").open("wb")
    command = [sys.executable, "-m", "ssl_core.run", str(workdir)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def wait_for(workdir: Path, type: str, process: subprocess.Popen[bytes], count: int = 1) -> None:
    """Until the run has emitted `count` events of a type."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (workdir / "events.jsonl").exists() and len(datasets.events(workdir, type)) >= count:
            return
        assert process.poll() is None, (workdir / "log.txt").read_text()
        time.sleep(0.02)
    raise AssertionError(f"no {count} {type} events in time")


def verdict(workdir: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((workdir / "result.json").read_text())
    return value


def checkpoints(workdir: Path) -> list[str]:
    return [str(path) for path in sorted((workdir / "checkpoints").glob("step-*"), reverse=True)]


def execute(workdir: Path) -> dict[str, Any]:
    """A run in this process."""
    return run(workdir, FileContext(workdir))


def test_a_run_killed_at_any_moment_and_resumed_equals_one_left_alone(pool: Path, tmp_path: Path) -> None:
    whole, first, second = tmp_path / "whole", tmp_path / "first", tmp_path / "second"
    datasets.order(whole, PRETRAIN, {"ds_toy": pool})
    datasets.order(first, PRETRAIN, {"ds_toy": pool})
    process = start(first)
    wait_for(first, "checkpoint", process, count=2)
    process.kill()
    process.wait()
    assert not (first / "result.json").exists()
    kept = checkpoints(first)
    datasets.order(second, PRETRAIN, {"ds_toy": pool}, checkpoints=kept)
    assert start(second).wait(90) == 0
    assert verdict(second)["status"] == "succeeded"
    # In this process: not even the process matters.
    assert execute(whole)["status"] == "succeeded"
    model = "artifact/model.safetensors"
    assert (second / model).read_bytes() == (whole / model).read_bytes()
    step = int(Path(kept[0]).name.removeprefix("step-"))
    before = {key: value for key, value in datasets.series(first).items() if key[0] <= step}
    assert before | datasets.series(second) == datasets.series(whole)


@pytest.mark.parametrize("word", ["pause", "cancel"])
def test_a_stop_file_saves_and_leaves(pool: Path, tmp_path: Path, word: str) -> None:
    run_dir = tmp_path / "run"
    datasets.order(run_dir, PRETRAIN, {"ds_toy": pool})
    (run_dir / "stop").write_text(word + "\n")
    told = execute(run_dir)
    assert told == {"status": "stopped", "reason": word, "step": 0}


def test_sigterm_drains_and_the_verdict_names_the_step(pool: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    datasets.order(run_dir, {**PRETRAIN, "budget": {"steps": 100_000}}, {"ds_toy": pool})
    process = start(run_dir)
    wait_for(run_dir, "metrics", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    told = verdict(run_dir)
    assert (told["status"], told["reason"]) == ("stopped", "drain")
    assert checkpoints(run_dir)[0].endswith(f"step-{told['step']:09d}")
    assert datasets.events(run_dir)[-1]["type"] == "checkpoint"


def test_the_engine_leaves_when_its_supervisor_is_killed(pool: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    datasets.order(run_dir, {**PRETRAIN, "budget": {"steps": 100_000}}, {"ds_toy": pool})
    code = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-m', 'ssl_core.run', {str(run_dir)!r}], start_new_session=True)\n"
        "print(p.pid, flush=True)\n"
        "p.wait()\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    wait_for(run_dir, "metrics", parent)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while not (run_dir / "result.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert verdict(run_dir)["reason"] == "drain"


def test_sigusr1_writes_every_stack_to_the_log_and_ends_nothing(pool: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    datasets.order(run_dir, PRETRAIN, {"ds_toy": pool})
    process = start(run_dir, GROUNDWORK_ENGINE_FAULT="hang@3")
    wait_for(run_dir, "metrics", process, count=2)
    deadline = time.monotonic() + 30
    while "fault.py" not in (run_dir / "log.txt").read_text() and time.monotonic() < deadline:
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.1)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "fault.py" in (run_dir / "log.txt").read_text()


def test_a_crash_leaves_no_verdict(pool: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    datasets.order(run_dir, PRETRAIN, {"ds_toy": pool})
    assert start(run_dir, GROUNDWORK_ENGINE_FAULT="crash@5").wait(60) == -signal.SIGKILL
    assert not (run_dir / "result.json").exists()


@pytest.mark.parametrize(
    ("fault", "kind", "code"), [("nan@5", "user", "non_finite_loss"), ("oom@5", "oom", "out_of_memory")]
)
def test_an_injected_fault_becomes_a_clear_verdict(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, kind: str, code: str
) -> None:
    monkeypatch.setenv("GROUNDWORK_ENGINE_FAULT", fault)
    run_dir = tmp_path / "run"
    datasets.order(run_dir, PRETRAIN, {"ds_toy": pool})
    error = execute(run_dir)["error"]
    assert (error["class"], error["code"]) == (kind, code)
    assert "step 5" in error["message"] and "Traceback" not in error["message"]


def damage(folder: Path, how: str) -> None:
    path = folder / "nets.safetensors"
    data = path.read_bytes()
    match how:
        case "flipped":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "truncated":
            path.write_bytes(data[: len(data) // 2])
        case "zero":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case "manifest":
            (folder / "manifest.json").write_text('{"step": 1, "files": [{}]}')


@pytest.fixture(scope="module")
def half(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped after 50 steps, with checkpoints at 40 and 50."""
    folder = tmp_path_factory.mktemp("half") / "run"
    datasets.order(folder, {**PRETRAIN, "budget": {"steps": 60}}, {"ds_toy": pool})
    assert run(folder, datasets.Interrupted(folder, after=50))["step"] == 50
    return folder


@pytest.mark.parametrize("how", ["flipped", "truncated", "zero", "missing", "manifest"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    half: Path, pool: Path, tmp_path: Path, how: str
) -> None:
    shutil.copytree(half / "checkpoints", tmp_path / "old" / "checkpoints")
    kept = checkpoints(tmp_path / "old")
    damage(Path(kept[0]), how)
    run_dir = tmp_path / "run"
    datasets.order(run_dir, {**PRETRAIN, "budget": {"steps": 60}}, {"ds_toy": pool}, checkpoints=kept)
    assert execute(run_dir)["status"] == "succeeded"
    message = datasets.events(run_dir, "message")[0]
    assert message["code"] == "checkpoint_fallback" and "step-000000050" in message["message"]
    assert min(step for step, _ in datasets.series(run_dir)) == 41


def test_no_good_checkpoint_fails_and_never_starts_again_in_silence(half: Path, pool: Path, tmp_path: Path) -> None:
    shutil.copytree(half / "checkpoints", tmp_path / "old" / "checkpoints")
    kept = checkpoints(tmp_path / "old")
    for folder in kept:
        damage(Path(folder), "flipped")
    run_dir = tmp_path / "run"
    datasets.order(run_dir, PRETRAIN, {"ds_toy": pool}, checkpoints=kept)
    assert execute(run_dir)["error"]["code"] == "no_valid_checkpoint"
    assert not datasets.events(run_dir, "metrics")


def test_a_checkpoint_of_another_spec_is_refused(half: Path, pool: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    wider = {**PRETRAIN, "backbone": {**datasets.TINY_TEXT, "width": 64}}
    datasets.order(run_dir, wider, {"ds_toy": pool}, checkpoints=checkpoints(half))
    assert execute(run_dir)["error"]["code"] == "checkpoint_mismatch"


def test_a_pretrained_model_is_fine_tuned_and_describes_itself(base_model: Path, pool: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    datasets.order(run_dir, FINETUNE, {"ds_toy": pool}, base=BASE, model=str(base_model))
    told = execute(run_dir)
    assert told["status"] == "succeeded" and told["metrics"]["final/accuracy"] >= 0.9
    assert told["summary"]["classes"] == sorted(datasets.TOPICS)
    card = json.loads((run_dir / "artifact" / "card.json").read_text())
    assert card["base_model"] == "mdl_a" and card["dataset_digests"]["ds_toy"] and card["software"]["torch"]
    assert 0.99 <= card["int8"]["cosine"] <= 1 and card["int8"]["rows"] == 18
    confusion = json.loads((run_dir / "samples" / "confusion.json").read_text())
    assert sum(map(sum, confusion["counts"])) == 18


@pytest.mark.parametrize(
    "fields", [{"task": {"name": "classification", "mode": "linear_probe"}}, {"initialization": "random"}]
)
def test_a_linear_probe_and_fresh_weights_run_too(
    base_model: Path, pool: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    run_dir = tmp_path / "run"
    datasets.order(run_dir, {**FINETUNE, **fields}, {"ds_toy": pool}, base=BASE, model=str(base_model))
    assert execute(run_dir)["status"] == "succeeded"


def test_a_probe_leaves_the_encoder_as_it_was(base_model: Path, pool: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run_dir = tmp_path / "run"
    spec = {**FINETUNE, "task": {"name": "classification", "mode": "linear_probe"}}
    datasets.order(run_dir, spec, {"ds_toy": pool}, base=BASE, model=str(base_model))
    execute(run_dir)
    before, after = load_file(base_model / "model.safetensors"), load_file(run_dir / "artifact" / "model.safetensors")
    encoder = [name for name in after if name.startswith("encoder.")]
    assert encoder and all(torch.equal(before[name], after[name]) for name in encoder)


def test_very_few_labels_train_without_holding_out_and_say_so(base_model: Path, tmp_path: Path) -> None:
    few = datasets.text_dataset(tmp_path / "few", rows=9)
    run_dir = tmp_path / "run"
    datasets.order(run_dir, FINETUNE, {"ds_toy": few}, base=BASE, model=str(base_model))
    told = execute(run_dir)
    assert told["status"] == "succeeded"
    codes = [event["code"] for event in datasets.events(run_dir, "message")]
    assert codes == ["no_holdout"]
    # A score of training rows must not look like one of held-out rows.
    scores = [name for name in told["metrics"] if not name.startswith("data/")]
    assert scores and all(name.startswith("final_train/") for name in scores)


def test_a_validation_dataset_is_scored_by_the_training_classes(base_model: Path, pool: Path, tmp_path: Path) -> None:
    other = datasets.text_dataset(tmp_path / "other", rows=30, seed=7)
    run_dir = tmp_path / "run"
    spec = {**FINETUNE, "validation_dataset": "ds_other"}
    datasets.order(run_dir, spec, {"ds_toy": pool, "ds_other": other}, base=BASE, model=str(base_model))
    assert execute(run_dir)["status"] == "succeeded"
    confusion = json.loads((run_dir / "samples" / "confusion.json").read_text())
    assert sum(map(sum, confusion["counts"])) == 30


def test_a_damaged_base_model_is_refused(base_model: Path, pool: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base_model, broken)
    (broken / "config.json").write_text("{}")
    run_dir = tmp_path / "run"
    datasets.order(run_dir, FINETUNE, {"ds_toy": pool}, base=BASE, model=str(broken))
    error = execute(run_dir)["error"]
    assert (error["code"], error["param"]) == ("invalid_model", "model")


def test_unlabelled_rows_cannot_be_a_probe(pool: Path, tmp_path: Path) -> None:
    bare = datasets.text_dataset(tmp_path / "bare", labelled=False)
    run_dir = tmp_path / "run"
    datasets.order(run_dir, {**PRETRAIN, "probe": {"dataset": "ds_bare"}}, {"ds_toy": pool, "ds_bare": bare})
    assert execute(run_dir)["error"]["param"] == "probe.dataset"


def test_a_first_solution_that_stays_the_best_is_said_to_be_of_step_zero(
    base_model: Path, pool: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    spec = {**FINETUNE, "optimizer": {"learning_rate": 1e-12}}
    datasets.order(run_dir, spec, {"ds_toy": pool}, base=BASE, model=str(base_model))
    assert execute(run_dir)["status"] == "succeeded"
    card = json.loads((run_dir / "artifact" / "card.json").read_text())
    assert (card["best_step"], card["steps"] > 0) == (0, True)


def test_a_probe_of_one_row_a_class_is_refused(pool: Path, tmp_path: Path) -> None:
    few = datasets.text_dataset(tmp_path / "few", rows=3)
    run_dir = tmp_path / "run"
    datasets.order(run_dir, {**PRETRAIN, "probe": {"dataset": "ds_few"}}, {"ds_toy": pool, "ds_few": few})
    error = execute(run_dir)["error"]
    assert (error["code"], error["param"]) == ("no_classes", "probe.dataset")


def test_an_unexpected_error_is_told_without_a_traceback(
    pool: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    made = datasets.order(run_dir, PRETRAIN, {"ds_toy": pool})
    blocked = made.model_copy(update={"cache": str(run_dir / "run.json")})
    (run_dir / "run.json").write_text(blocked.model_dump_json())
    error = execute(run_dir)["error"]
    assert (error["class"], error["code"]) == ("infra", "engine_error")
    assert "Traceback" not in error["message"] and "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize("content", ["", "{", '{"spec": {"type": "pretrain"}}'])
def test_a_broken_order_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    assert execute(tmp_path)["error"]["code"] == "invalid_order"


def test_two_runs_share_the_prepared_shards(pool: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        datasets.order(tmp_path / name, {**PRETRAIN, "budget": {"steps": 1}}, {"ds_toy": pool})
        assert execute(tmp_path / name)["status"] == "succeeded"
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1
    assert datasets.events(tmp_path / "b", "progress")[0]["stage"] != "preparing"


def test_two_processes_follow_the_trajectory_of_one(pool: Path, tmp_path: Path) -> None:
    spec = {**PRETRAIN, "budget": {"steps": 12}, "backbone": {**datasets.TINY_TEXT, "dropout": 0.0}}
    single, double = tmp_path / "single", tmp_path / "double"
    datasets.order(single, spec, {"ds_toy": pool})
    datasets.order(double, {**spec, "resources": {"processes": 2}}, {"ds_toy": pool})
    process = start(double)
    assert execute(single)["status"] == "succeeded"
    process.wait(120)
    assert verdict(double)["status"] == "succeeded", (double / "log.txt").read_text()
    one, two = datasets.series(single), datasets.series(double)
    losses = [(one[step, "train/loss"], two[step, "train/loss"]) for step in range(1, 13)]
    assert all(abs(first - second) < 0.03 * first for first, second in losses), losses
