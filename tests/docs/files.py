"""The files that the pages speak of, in small: a page's blocks run in a folder that holds all of them."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from examples.datasets import digits
from tests.ssl_core.tones import sound, tone

WORDS = {
    "bakery": ["bread", "oven", "flour", "butter", "salt", "dough", "crust", "yeast", "bake", "loaf"],
    "harbour": ["mast", "rope", "tide", "anchor", "hull", "sail", "quay", "wind", "crew", "deck"],
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Of the tour's pictures; here they are digits."""
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def write(folder: Path, page: str) -> None:
    """Those that a page speaks of.

    Args:
        folder: an empty one.
        page: its text.
    """
    folder.mkdir()
    for names, make in _MADE:
        if any(re.search(rf"\b{re.escape(name)}", page) for name in names):
            make(folder)


def _said(topic: str, seed: int, count: int = 24) -> str:
    return " ".join(random.Random(f"{topic}{seed}").choices(WORDS[topic], k=count))


def _texts(folder: Path) -> None:
    pool = [{"text": _said(topic, seed)} for seed in range(40) for topic in WORDS]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pool))
    for name, first, count in (("few", 1000, 8), ("test", 2000, 6)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = [(_said(topic, seed), topic) for seed in range(first, first + count) for topic in WORDS]
            csv.writer(file).writerows([("text", "label"), *rows])


def _pictures(folder: Path) -> None:
    split = digits(10, 4)
    for name, rows in (("labelled", split.train), ("test", split.test)):
        of: dict[str, int] = {}
        for content, label in rows:
            of[label] = of.get(label, 0) + 1
            _put(folder / name / CLASSES[int(label)] / f"{of[label]:04d}.png", _enlarged(content))
    for number, content in enumerate(split.pool[:64]):
        _put(folder / "pictures" / f"{number:04d}.png", _enlarged(content))
    _zip(folder / "pictures.zip", {f"{n:04d}.png": content for n, content in enumerate(split.pool[:64])})


def _enlarged(picture: bytes) -> bytes:
    """A digit at the size of the tour's pictures, for which the recipe takes the same encoder."""
    return _png(Image.open(io.BytesIO(picture)).convert("RGB").resize((32, 32)))


def _sounds(folder: Path) -> None:
    pitches = {"low": 300.0, "high": 700.0}

    def clip(pitch: float, seed: int) -> bytes:
        return sound(tone(pitch + seed % 7, 0.3, seed=seed))

    pool = {f"{n:04d}.wav": clip(list(pitches.values())[n % 2], n) for n in range(48)}
    _zip(folder / "sounds.zip", pool)
    for name, first, count in (("few-sounds", 100, 6), ("test-sounds", 200, 4)):
        rows = {f"{label}/{n}.wav": clip(p, n) for label, p in pitches.items() for n in range(first, first + count)}
        _zip(folder / f"{name}.zip", rows)
    _put(folder / "clip.wav", clip(300.0, 999))


def _proteins(folder: Path) -> None:
    def chain(seed: int) -> str:
        return "".join(random.Random(seed).choices(LETTERS, k=48))

    (folder / "chains.fasta").write_text("".join(f">chain{n}\n{chain(n)}\n" for n in range(60)))
    for name, first, count in (("structure", 100, 16), ("test-structure", 200, 8)):
        rows = [{"sequence": chain(n), "labels": chain(n).translate(_STATES)} for n in range(first, first + count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


_STATES = str.maketrans(LETTERS, ("HEC" * 7)[: len(LETTERS)])


def _pairs(folder: Path) -> None:
    colours = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "grey": (120, 120, 120)}
    files: dict[str, bytes] = {}
    lines = []
    for number in range(48):
        name, colour = list(colours.items())[number % 4]
        files[f"images/{number}.png"] = _square(colour, number)
        lines.append({"image": f"images/{number}.png", "caption": f"a {name} square number {number}"})
    files["captions.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
    _zip(folder / "pairs.zip", files)
    _put(folder / "square.png", _square(colours["red"], 99))


def _translations(folder: Path) -> None:
    plain = [_said(topic, seed, 8) for seed in range(40) for topic in WORDS]
    (folder / "sentences.txt").write_text("\n".join([*plain, *(line.upper() for line in plain)]))
    for name, first, count in (("pairs", 100, 24), ("test-pairs", 300, 6)):
        said = [_said(topic, seed, 8) for seed in range(first, first + count // 2) for topic in WORDS]
        rows = [{"source": line, "target": line.upper()} for line in said]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _cells(folder: Path) -> None:
    for name, first, count in (("cells", 0, 16), ("test-cells", 500, 6)):
        images, boxes, files = [], [], {}
        for number in range(first, first + count):
            x, y = (int(each) for each in np.random.default_rng(number).integers(4, 36, 2))
            files[f"images/{number}.png"] = _spot(x, y, number)
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
            boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [x, y, 20, 20]})
        told = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
        _zip(folder / f"{name}.zip", {**files, "annotations.json": json.dumps(told).encode()})
    _put(folder / "cell.png", _spot(10, 30, 900))


def _square(colour: tuple[int, int, int], seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(-25, 25, (24, 24, 3))
    return _png(np.clip(np.array(colour) + noise, 0, 255))


def _spot(x: int, y: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(180, 220, (64, 64, 3))
    pixels[y : y + 20, x : x + 20] = (200, 60, 80)
    return _png(pixels)


def _png(pixels: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels).astype("uint8")).save(out, "PNG")
    return out.getvalue()


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _public(folder: Path) -> None:
    from tests.ssl_core.interop.folders import bert_folder, zipped  # imports transformers, which takes seconds

    zipped(bert_folder(folder / "bert"), folder / "bert.zip")


_MADE: tuple[tuple[tuple[str, ...], Callable[[Path], None]], ...] = (
    (("pool.jsonl", "few.csv", "test.csv"), _texts),
    (("pictures", "labelled", "pictures.zip"), _pictures),
    (("sounds.zip", "clip.wav"), _sounds),
    (("chains.fasta", "structure.jsonl"), _proteins),
    (("pairs.zip", "square.png"), _pairs),
    (("sentences.txt", "pairs.jsonl"), _translations),
    (("cells.zip", "cell.png"), _cells),
    (("bert.zip",), _public),
)
