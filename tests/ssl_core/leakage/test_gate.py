"""Rows to be scored that a model learns from too are named before anything is trained."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ssl_core.context import MemoryContext
from ssl_core.errors import DataError
from ssl_core.leakage.gate import Leak, Side, before_finetune, check
from ssl_core.run import run
from ssl_core.spec import FinetuneSpec, RunOrder
from tests.ssl_core import datasets

PLANTED = {3: 40, 7: 2, 11: 19, 12: 55, 20: 8, 21: 33, 25: 71, 30: 14, 36: 60, 39: 5}
"""Row of the test data -> row of the training data that it is nearly."""
WORDS = [head + tail for head in ("bar", "lon", "mi", "ros", "tek", "vu") for tail in ("ab", "el", "in", "or", "us")]


def texts(rows: int, seed: int) -> list[Any]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, 40)) for _ in range(rows)]


def other_text(text: str) -> str:
    """One word is another, and the line broken anew."""
    words = text.upper().split()
    return "\n".join([*words[:20], "elsewhere", *words[21:]])


def chains(rows: int, seed: int) -> list[Any]:
    draw = np.random.default_rng(seed)
    return ["".join(draw.choice(list("ACDEFGHIKLMNPQRSTVWY"), 120)) for _ in range(rows)]


def other_chain(chain: str) -> str:
    """Three residues of 120 are others."""
    return "".join("W" if at in (20, 60, 100) else letter for at, letter in enumerate(chain))


def pictures(rows: int, seed: int) -> list[Any]:
    draw = np.random.default_rng(seed)
    small = [draw.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in range(rows)]
    return [datasets.png(np.asarray(Image.fromarray(one).resize((48, 48), Image.Resampling.BICUBIC))) for one in small]


def other_picture(data: bytes) -> bytes:
    """Smaller, and as a JPEG."""
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((40, 40)).save(out, "JPEG", quality=75)
    return out.getvalue()


def wave(samples: Any) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, samples, 8000, format="WAV")
    return out.getvalue()


def sounds(rows: int, seed: int) -> list[Any]:
    """Ten tones one after another."""
    draw, time = np.random.default_rng(seed), np.arange(800) / 8000
    tones = [[np.sin(2 * np.pi * pitch * time) for pitch in draw.uniform(100, 3500, 10)] for _ in range(rows)]
    return [wave(0.5 * np.concatenate(one)) for one in tones]


def other_sound(data: bytes) -> bytes:
    """Half as loud and a tenth of a second later."""
    import soundfile

    samples, _ = soundfile.read(io.BytesIO(data))
    return wave(np.concatenate([np.zeros(800), samples * 0.5]))


MADE = {
    "text": (texts, other_text), "protein": (chains, other_chain), "image": (pictures, other_picture),
    "audio": (sounds, other_sound),
}  # fmt: skip


def written(folder: Path, modality: str, contents: list[Any]) -> Path:
    """A canonical dataset folder, its rows labelled in turn."""
    count = len(contents)
    columns = {
        modality: contents, "label": pa.array([["a", "b"][at % 2] for at in range(count)], pa.string()),
        "source": [f"{folder.name}.csv:{at + 1}" for at in range(count)],
    }  # fmt: skip
    return datasets.write_dataset(folder, columns, {"modality": modality})


def sides(folder: Path, modality: str, planted: dict[int, int]) -> RunOrder:
    make, change = MADE[modality]
    train, test = make(80, 1), make(40, 2)
    for row, other in planted.items():
        test[row] = change(train[other])
    paths = {
        "ds_train": str(written(folder / "train", modality, train)),
        "ds_test": str(written(folder / "test", modality, test)),
    }
    spec = {"type": "finetune", "dataset": "ds_train", "test_dataset": "ds_test", "task": {"name": "classification"}}
    return RunOrder.model_validate({"spec": spec, "datasets": paths, "cache": str(folder / "cache")})


def found(order: RunOrder, context: MemoryContext, allow: bool) -> list[Leak]:
    return check(order, Side("test_dataset", "ds_test"), [Side("training", "ds_train")], allow, context)


@pytest.mark.parametrize("modality", list(MADE))
def test_ten_planted_near_duplicates_are_named_and_nothing_else(modality: str, tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    leaks = found(sides(tmp_path, modality, PLANTED), context, allow=True)
    assert {leak.row: leak.known_row for leak in leaks} == PLANTED
    listed = json.loads((tmp_path / "samples" / "leakage_test_dataset.json").read_text())
    assert [each["source"] for each in listed["leaks"]] == [f"test.csv:{row + 1}" for row in PLANTED]
    warning = next(event for event in context.events if event["type"] == "message")
    assert warning["code"] == "leakage"


@pytest.mark.parametrize("modality", list(MADE))
def test_clean_data_passes_without_a_word(modality: str, tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    assert found(sides(tmp_path, modality, {}), context, allow=False) == []
    assert {event["type"] for event in context.events} == {"progress"}


def test_the_error_names_rows_on_both_sides(tmp_path: Path) -> None:
    order = sides(tmp_path, "text", PLANTED)
    with pytest.raises(DataError, match="10 of 40 rows of test_dataset") as caught:
        found(order, MemoryContext(tmp_path), allow=False)
    assert (caught.value.code, caught.value.param) == ("leakage", "test_dataset")
    for row, other in PLANTED.items():
        assert f"row {row} (test.csv:{row + 1}) is a near duplicate" in caught.value.message
        assert f"row {other} (train.csv:{other + 1}) of the training data" in caught.value.message


def test_fine_tuning_stops_before_it_trains(tmp_path: Path) -> None:
    spec = {
        "type": "finetune", "dataset": "ds_toy", "test_dataset": "ds_test", "task": {"name": "classification"},
        "modality": datasets.TEXT.model_dump(), "backbone": datasets.TINY_TEXT, "budget": {"steps": 2}, "batch_size": 8,
    }  # fmt: skip
    toy = datasets.text_dataset(tmp_path / "toy")
    datasets.order(tmp_path / "run", spec, {"ds_toy": toy, "ds_test": toy})
    context = MemoryContext(tmp_path / "run")
    verdict = run(tmp_path / "run", context)
    assert (verdict["error"]["code"], verdict["error"]["param"]) == ("leakage", "test_dataset")
    assert "training" not in [event.get("stage") for event in context.events]


def test_what_the_model_was_pretrained_on_counts_for_test_data_only(tmp_path: Path) -> None:
    order = sides(tmp_path, "text", PLANTED)
    clean = written(tmp_path / "clean", "text", texts(30, 3))
    paths = {"ds_pool": order.datasets["ds_train"], "ds_train": str(clean), "ds_test": order.datasets["ds_test"]}
    body = order.spec.model_dump()
    held = {"pool": "ds_pool", "dataset": "ds_train"}
    as_validation = FinetuneSpec.model_validate({**body, **held, "test_dataset": None, "validation_dataset": "ds_test"})
    made = order.model_copy(update={"datasets": paths})
    before_finetune(made, as_validation, MemoryContext(tmp_path))
    as_test = FinetuneSpec.model_validate({**body, **held})
    with pytest.raises(DataError, match="of the pretraining data"):
        before_finetune(made, as_test, MemoryContext(tmp_path))


def test_a_second_look_reads_what_the_first_one_kept(tmp_path: Path) -> None:
    order, first, second = sides(tmp_path, "text", PLANTED), MemoryContext(tmp_path), MemoryContext(tmp_path)
    assert found(order, first, allow=True) == found(order, second, allow=True)
    assert any(event["type"] == "progress" for event in first.events)
    assert not any(event["type"] == "progress" for event in second.events)
