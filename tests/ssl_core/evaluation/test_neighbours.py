"""The nearest documents a user looks at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ssl_core.context import MemoryContext
from ssl_core.data.cache import prepared
from ssl_core.evaluation.neighbours import nearest, tell
from tests.ssl_core import datasets


def test_a_query_comes_first_and_its_nearest_after_it() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    assert nearest(vectors, queries=2, count=1).tolist() == [[0, 1], [3, 2]]


def test_a_duplicate_does_not_take_the_place_of_the_query() -> None:
    assert nearest(torch.ones(5, 3), queries=5, count=2)[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_texts_are_shown_as_text(tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    folder = prepared(datasets.TEXT, datasets.text_dataset(tmp_path / "data"), tmp_path / "cache", None, context)
    source = datasets.TEXT.open(folder)
    tell(context, source, folder, np.arange(90), torch.eye(3)[torch.arange(90) % 3], step=7)
    assert context.events[-1]["media_type"] == "text/plain" and context.events[-1]["step"] == 7
    blocks = (tmp_path / context.events[-1]["path"]).read_text().strip().split("\n\n")
    assert len(blocks) == 6 and all(len(block.splitlines()) == 6 for block in blocks)
    words = {word for topic in datasets.TOPICS.values() for word in topic}
    assert set(blocks[0].split()[:5]) <= words


def test_pictures_are_shown_as_one_picture(tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    folder = prepared(datasets.IMAGE, datasets.image_dataset(tmp_path / "data"), tmp_path / "cache", None, context)
    source = datasets.IMAGE.open(folder)
    tell(context, source, folder, np.arange(60), torch.eye(3)[torch.arange(60) % 3], step=7)
    with Image.open(tmp_path / context.events[-1]["path"]) as image:
        assert image.size == (6 * 64, 6 * 64)
