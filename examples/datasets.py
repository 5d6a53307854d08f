"""The demo's two datasets, made from what is installed: no download.

Pictures: scikit-learn's handwritten digits (8 x 8, grey). Texts: the docstrings of the installed packages, the package
being the label. Both are split once, with a fixed seed, into a pool without labels, a few labels and a test set.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import random
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20240607


@dataclass(frozen=True)
class Split:
    """Items are texts or PNG bytes; labels are class names, aligned with them."""

    pool: list[Any]
    train: list[tuple[Any, str]]
    test: list[tuple[Any, str]]


def digits(labels_per_class: int, test_per_class: int = 50) -> Split:
    """1,797 pictures of 10 digits; the pool is everything outside the test set."""
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    rows = []
    for picture, label in zip(bunch.images, bunch.target, strict=True):
        buffer = io.BytesIO()
        Image.fromarray((picture * 255 / 16).round().astype("uint8")).save(buffer, "PNG")
        rows.append((buffer.getvalue(), str(label)))
    return split(rows, labels_per_class, test_per_class)


def docstrings(
    labels_per_class: int, packages: int = 8, per_package: int = 900, test_per_class: int = 50
) -> Split:
    """Docstrings of the `packages` packages that have the most, at most `per_package` of each."""
    site = Path(sysconfig.get_paths()["purelib"])
    files = {p.name: sorted(p.rglob("*.py")) for p in site.iterdir() if (p / "__init__.py").is_file()}
    largest = sorted(files, key=lambda name: (-len(files[name]), name))[: packages + 4]
    found = {name: _docstrings_of(files[name], per_package) for name in largest}
    richest = sorted(found, key=lambda name: (-len(found[name]), name))[:packages]
    return split(
        [(text, name) for name in sorted(richest) for text in found[name]], labels_per_class, test_per_class
    )


def split(rows: list[tuple[Any, str]], labels_per_class: int, test_per_class: int) -> Split:
    """Shuffle with the fixed seed: of each class the first are test, the next the labels; all but test is the pool."""
    rows = list(rows)
    random.Random(SEED).shuffle(rows)
    seen: dict[str, int] = {}
    train, test, pool = [], [], []
    for item, label in rows:
        place = seen[label] = seen.get(label, 0) + 1
        if place <= test_per_class:
            test.append((item, label))
            continue
        pool.append(item)
        if place <= test_per_class + labels_per_class:
            train.append((item, label))
    return Split(pool, train, test)


def write_texts(path: Path, texts: list[str]) -> Path:
    """A pool of texts as JSONL."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def write_labelled_texts(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Labelled texts as CSV with the columns `text` and `label`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return path


def write_pictures(path: Path, pictures: list[bytes]) -> Path:
    """A pool of pictures as a flat zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, picture in enumerate(pictures):
            archive.writestr(f"{number:06d}.png", picture)
    return path


def write_labelled_pictures(path: Path, rows: list[tuple[bytes, str]]) -> Path:
    """Labelled pictures as a zip with one folder a class."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, (picture, label) in enumerate(rows):
            archive.writestr(f"{label}/{number:06d}.png", picture)
    return path


def _docstrings_of(files: list[Path], limit: int) -> list[str]:
    """Up to `limit` different docstrings from files in a fixed random order (parsing them all would take a minute)."""
    files = list(files)
    random.Random(SEED).shuffle(files)
    texts: dict[str, None] = {}
    for path in files:
        texts.update(dict.fromkeys(_docstrings_in(path)))
        if len(texts) >= limit:
            break
    return list(texts)[:limit]


def _docstrings_in(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            if len(text) >= 60:
                yield text[:1500]
