"""What a finished run shows: views, fills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssl_core.context import MemoryContext
from ssl_core.data.cache import prepared
from ssl_core.evaluation.samples import Show
from ssl_core.run import run
from ssl_core.run_context import FileContext
from tests.ssl_core import datasets


def shown(folder: Path, objective: str, modality: Any, backbone: dict[str, Any], data: Path) -> dict[str, Path]:
    """Samples of a short run by name."""
    torch.set_num_threads(1)
    spec = {"type": "pretrain", "objective": {"name": objective}, "dataset": "ds_toy", "modality": modality,
            "backbone": backbone, "batch_size": 8, "seed": 5, "budget": {"steps": 3}}  # fmt: skip
    datasets.order(folder, spec, {"ds_toy": data})
    assert run(folder, FileContext(folder))["status"] == "succeeded"
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return {event["name"]: folder / event["path"] for event in events if event["type"] == "sample"}


def test_masked_modelling_shows_what_was_hidden_and_what_was_guessed(tmp_path: Path) -> None:
    data = datasets.text_dataset(tmp_path / "data")
    text = shown(tmp_path / "run", "mlm", datasets.TEXT, datasets.TINY_TEXT, data)["fills"].read_text()
    assert text.count(" > ") >= 2
    known = {word for words in datasets.TOPICS.values() for word in words}
    assert known & set(text.replace("[", " ").split())


def test_pictures_show_the_views_that_were_compared(tmp_path: Path) -> None:
    data = datasets.image_dataset(tmp_path / "data")
    found = shown(tmp_path / "run", "simclr", datasets.IMAGE, datasets.TINY_IMAGE, data)
    with Image.open(found["views"]) as picture:
        assert picture.width == 2 * 8 * 8 and picture.height % (8 * 8) == 0  # two views, eightfold
        assert np.asarray(picture).std() > 10


def test_filled_places_stand_in_their_sentence(tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    shards = prepared(datasets.TEXT, datasets.text_dataset(tmp_path / "d"), tmp_path / "cache", None, context)
    show = Show(context, shards, step=3)
    ids = torch.from_numpy(datasets.TEXT.open(shards).read("document", np.array([0]))["ids"][0].astype(np.int64))[:6]
    assert show.filled(ids, {}) == " ".join(show.words(ids).split())
    assert show.filled(ids, {2: int(ids[0])}).count("[") == 1
    show.text("fills", ["one", "two"], "two lines")
    assert (tmp_path / "samples/fills.txt").read_text() == "one\ntwo"
    assert context.events[-1]["media_type"] == "text/plain" and context.events[-1]["step"] == 3


def test_pictures_of_two_sizes_and_of_grey_stand_side_by_side(tmp_path: Path) -> None:
    show = Show(MemoryContext(tmp_path), tmp_path, step=0)
    show.pictures("both", [torch.zeros(2, 3, 8, 8), torch.ones(2, 1, 4, 4)], "a large and a small column")
    with Image.open(tmp_path / "samples/both.png") as picture:
        assert (picture.width, picture.height) == (12 * 8, 16 * 8)
