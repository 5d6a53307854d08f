"""The command line beside a whole `groundwork serve`: data in, a model out, vectors and answers, no key typed."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.groundwork.commanding import Shell
from tests.groundwork.serving import Served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a training; machines are shared
MODALITY = "modality={name: text, vocab_size: 512, max_length: 64}"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Beside a serve whose data folder is `data`, as it is for whoever has just installed it."""
    folder = tmp_path_factory.mktemp("whole")
    served = Served(folder / "data").ready()
    made = Shell(folder)
    made.says("login")
    yield made
    assert served.stop() == 0


def test_login_beside_a_serve_needs_no_key(shell: Shell) -> None:
    shell.says("logout")
    assert "groundwork login" in shell.refuses("datasets", "list", status=2)
    assert "logged in at http://127.0.0.1:" in shell.says("login")
    assert "login on" in shell.says("keys", "list")
    assert shell.json("whoami")["project_name"] == "default"


def test_a_folder_of_pictures_becomes_a_labelled_dataset(shell: Shell) -> None:
    for label, colour in (("red", 200), ("blue", 30)):
        for number in range(6):
            path = shell.folder / "pictures" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((24, 24), 60).point(lambda value, add=colour: (value + add) % 256).save(path)
    (shell.folder / "pictures" / ".DS_Store").write_bytes(b"junk")
    made = shell.json("datasets", "upload", "pictures", "--wait", "--metadata", "from=test")
    assert (made["status"], made["modality"], made["rows"], made["labelled"]) == ("ready", "image", 12, 12)
    assert made["name"] == "pictures" and made["metadata"] == {"from": "test"} and made["bad_rows"] == 0
    assert "(image/png," in shell.says("datasets", "preview", made["id"])
    profile = shell.says("datasets", "profile", made["id"])
    assert re.search(r"red +6 +█", profile) and "2 classes" in profile
    assert "no bad rows" in shell.says("datasets", "errors", made["id"])
    shell.says("datasets", "content", made["id"], "-o", "back.zip")
    names = zipfile.ZipFile(shell.folder / "back.zip").namelist()
    assert sorted(names)[0] == "blue/0.png" and len(names) == 12


def test_what_cannot_be_used_is_told_row_by_row(shell: Shell) -> None:
    rows = [{"text": "good words"}] * 5 + [{"text": 7}]
    (shell.folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made = shell.json("datasets", "upload", "rows.jsonl", "--wait")
    assert made["bad_rows"] == 1 and "rows.jsonl" in shell.says("datasets", "errors", made["id"])
    done = shell.run("datasets", "upload", "rows.jsonl", "--columns", "text=body", "--wait", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["status"] == "invalid"


def test_from_a_pool_to_vectors_and_answers(shell: Shell) -> None:
    words = ("red", "green", "blue", "small", "large", "old", "new", "house", "tree", "river")
    lines = [" ".join(words[(start + step * step) % 10] for step in range(12)) for start in range(80)]
    (shell.folder / "pool.txt").write_text("\n".join(f"{line} {number}" for number, line in enumerate(lines)))
    pool = shell.json("datasets", "upload", "pool.txt", "--wait")["id"]
    train = ("--steps", "6", "--set", MODALITY, "--set", "on_collapse=warn", "--watch")
    watched = shell.says("pretrain", pool, "--objective", "mlm", "--backbone", "text-tiny", *train)
    model = re.findall(r"mdl_\w+", watched)[-1]
    assert "Stage: training." in watched and "train/loss" in watched
    card = shell.says("models", "show", model)
    assert "came from" in card and pool in card and "scores" in card
    assert model in shell.says("models", "list")
    assert "called frogs" in shell.says("models", "rename", model, "frogs")
    assert shell.says("models", "download", model).startswith("frogs.zip")
    assert "config.json" in zipfile.ZipFile(shell.folder / "frogs.zip").namelist()
    assert "is there already" in shell.refuses("models", "download", model, status=2)

    (shell.folder / "texts.txt").write_text("red house\n\nold tree\n")
    found = shell.json("embed", model, "new river", "-f", "texts.txt", "--dimensions", "8")
    assert [len(row["embedding"]) for row in found["data"]] == [8, 8, 8]
    assert "old tree" in shell.says("embed", model, "-f", "-", stdin="old tree\n")
    assert "red" in shell.says("predict", model, "red [MASK] blue")
    shell.says("embed", model, "--dataset", pool, "-o", "vectors.parquet")
    assert (shell.folder / "vectors.parquet").read_bytes()[:4] == b"PAR1"
    assert "needs a place" in shell.refuses("embed", model, "--dataset", pool, status=2)
    assert "no picture" in shell.refuses("embed", model, "-f", "frogs.zip", status=2)
    assert "nothing to ask" in shell.refuses("predict", model, status=2)
    assert f"deleted {model}" in shell.says("models", "delete", model, "--yes")


def test_doctor_looks_at_the_serve_of_this_folder(shell: Shell) -> None:
    found = {each["part"]: each["status"] for each in shell.json("doctor")}
    assert found["api"] == found["database"] == found["store"] == "ok"


def test_reports_are_those_of_label_efficiency_jobs(shell: Shell) -> None:
    assert "no reports" in shell.says("reports", "list")
    assert "No job" in shell.refuses("reports", "show", "job_none")
