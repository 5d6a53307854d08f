"""A spec from a file and flags: JSON's scalars in YAML, and every field knows where it was written."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from groundwork.commands.failures import Failure
from groundwork.commands.specs import Draft, dump, read, sets, value
from groundwork.commands.submit import draft
from tests.groundwork.commanding import Desk, desk

__all__ = ["desk"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1e-3", 0.001), ("1.5", 1.5), ("-3", -3), ("010", "010"), ("true", True), ("no", "no"), ("off", "off"),
        ("null", None), ("2026-01-01", "2026-01-01"), ("[5, 10]", [5, 10]), ("{a: 1e2}", {"a": 100.0}),
        ("1_000", "1_000"), ("a: b: c", "a: b: c"), ("0x1f", "0x1f"), ("", None), ("12:30:00", "12:30:00"),
    ],
)  # fmt: skip
def test_values_are_what_json_would_call_them(text: str, meant: object) -> None:
    assert value(text) == meant and type(value(text)) is type(meant)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("spec.yaml", "type: pretrain\nobjective: {name: mlm\n", "spec.yaml line 3"),
        ("spec.yaml", "type: pretrain\n\tdataset: x\n", "spec.yaml line 2"),
        ("spec.yaml", "type: pretrain\nsteps: 1\ntype: finetune\n", "spec.yaml line 3: `type` stands there twice"),
        ("spec.json", '{"type": "pretrain",\n "dataset": }', "spec.json line 2"),
        ("spec.yaml", "- a\n- b\n", "no spec"),
        ("spec.yaml", "", "no spec"),
        ("spec.yaml", "1: 2\n", "no spec"),
        ("spec.yaml", "!!python/object/apply:os.system ['true']\n", "spec.yaml line 1"),
    ],
)
def test_a_broken_file_is_told_with_its_line(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(Failure) as failure:
        read(str(tmp_path / name))
    assert words in failure.value.message


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot be read"):
        read(str(tmp_path / "none.yaml"))
    (tmp_path / "spec.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Failure, match="UTF-8"):
        read(str(tmp_path / "spec.yaml"))


def test_json_with_tabs_is_read_though_yaml_would_not(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{\n\t"type":\t"pretrain",\n\t"dataset": "ds_1"\n}')
    assert read(str(tmp_path / "spec.json")).body == {"type": "pretrain", "dataset": "ds_1"}


def test_flags_win_over_the_file_and_set_over_flags(tmp_path: Path) -> None:
    text = "type: pretrain\ndataset: ds_1\nobjective: {name: mlm, mask_probability: 0.3}\nbudget: {epochs: 2}\n"
    (tmp_path / "spec.yaml").write_text(text)
    flags = {"dataset": "ds_2", "objective": "mlm", "steps": 5}
    made = draft(str(tmp_path / "spec.yaml"), flags, ["a=b"], ["objective.whole_word=true", "budget.steps=7"])
    assert made.body == {
        "type": "pretrain", "dataset": "ds_2", "budget": {"steps": 7}, "metadata": {"a": "b"},
        "objective": {"name": "mlm", "mask_probability": 0.3, "whole_word": True},
    }  # fmt: skip
    assert made.where("dataset") == "--dataset" and made.where("budget.steps") == "--set budget.steps"
    assert "line 3" in str(made.where("objective.mask_probability"))
    assert made.where("seed") is None


def test_another_objective_leaves_the_settings_of_the_first_behind(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("dataset: ds_1\nobjective: {name: mlm, mask_probability: 0.3}\n")
    made = draft(str(tmp_path / "spec.yaml"), {"objective": "next_token"}, None, None)
    assert made.body["objective"] == {"name": "next_token"}


def test_labels_are_one_number_or_several() -> None:
    assert draft(None, {"type": "finetune", "labels": "30"}, None, None).body["labels"] == 30
    assert draft(None, {"type": "label_efficiency", "labels": "30"}, None, None).body["labels"] == [30]
    assert draft(None, {"type": "label_efficiency", "labels": "5,10"}, None, None).body["labels"] == [5, 10]
    with pytest.raises(Failure, match="--labels"):
        draft(None, {"type": "finetune", "labels": "many"}, None, None)


def test_a_spec_that_says_no_kind_and_a_set_that_is_none() -> None:
    with pytest.raises(Failure, match="kind of job"):
        draft(None, {"dataset": "ds_1"}, None, None)
    for wrong in ("steps", "a..b=1", "=1"):
        with pytest.raises(Failure, match="--set"):
            sets(Draft(), [wrong])
    with pytest.raises(Failure, match="no fields"):
        sets(Draft({"dataset": "ds_1"}), ["dataset.name=x"])


def test_what_is_dumped_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"type": "pretrain", "optimizer": {"learning_rate": 1e-5, "name": "adamw"}, "on": "no", "model": None}
    monkeypatch.setattr("sys.stdin", io.StringIO(dump(spec)))
    assert read("-").body == spec


def test_a_refusal_names_the_line_of_the_file_the_flag_or_the_set(desk: Desk) -> None:
    dataset, file = desk.world.dataset(), desk.shell.folder / "wrong.yaml"
    file.write_text(f"type: pretrain\ndataset: {dataset}\nobjective:\n  name: mlm\n  mask_probability: 7\n")
    line = desk.shell.refuses("jobs", "submit", "-f", "wrong.yaml")
    assert "wrong.yaml line 5" in line and "0.6" in line and "groundwork objectives" in line
    base = ("jobs", "submit", "--dataset", dataset, "--objective", "mlm")
    assert "--backbone: unknown backbone 'nope'" in desk.shell.refuses(*base, "--backbone", "nope")
    assert "--steps:" in desk.shell.refuses(*base, "--steps", "0")
    assert "--set resources.cows:" in desk.shell.refuses(*base, "--set", "resources.cows=3")
    assert "--dataset:" in desk.shell.refuses("jobs", "submit", "--dataset", "ds_none", "--objective", "mlm")


def test_a_dry_run_starts_nothing_and_its_spec_can_be_sent(desk: Desk) -> None:
    dataset, before = desk.world.dataset(), desk.shell.json("jobs", "list")
    base = ("pretrain", dataset, "--objective", "mlm", "--steps", "12")
    words = desk.shell.says(*base, "--dry-run")
    assert "steps: 12" in words and "it would need" in words and "memory" in words
    found = desk.shell.json(*base, "--dry-run")
    assert found["steps"] == 12 and desk.shell.json("jobs", "list") == before
    (desk.shell.folder / "resolved.yaml").write_text(words.partition("it would need")[0])
    sent = desk.shell.json("jobs", "submit", "-f", "resolved.yaml")
    assert sent["resolved_spec"] == found["resolved_spec"]


def test_settings_of_a_task_that_is_not_named_are_for_the_default_one(desk: Desk) -> None:
    told = desk.shell.refuses("finetune", "mdl_none", desk.world.dataset(), "--set", "task.mode=linear_probe")
    assert "mdl_none" in told and "task" not in told, told
