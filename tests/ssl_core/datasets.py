"""Small dataset folders as ingest writes them (docs/contracts.md §3), and run directories around them."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ssl_core.modalities.image import ImageModality
from ssl_core.modalities.image_text import ImageTextModality
from ssl_core.modalities.protein import ProteinModality
from ssl_core.modalities.text import TextModality
from ssl_core.recipes import resolve
from ssl_core.run_context import FileContext
from ssl_core.spec import JOB_SPEC, DatasetFacts, RunOrder
from ssl_core.targets.boxes import Boxes

TEXT = TextModality(max_length=24, vocab_size=512, span_min=4, span_max=10)
IMAGE = ImageModality(size=8, channels=3)
PROTEIN = ProteinModality(max_length=32, span_min=4, span_max=12)
IMAGE_TEXT = ImageTextModality(size=8, channels=3, vocab_size=512, max_length=12)
TINY_TEXT = {"name": "custom", "family": "transformer", "width": 32, "depth": 1, "heads": 2, "dropout": 0.1}
TINY_IMAGE = {"name": "custom", "family": "convnet", "width": 16, "depth": 2}
TINY_PAIR = {
    "name": "custom", "family": "dual", "width": 32, "depth": 1, "image": TINY_IMAGE,
    "text": {**TINY_TEXT, "dropout": 0.0},
}  # fmt: skip
TOPICS = {
    "cooking": ["bread", "oven", "salt", "flour", "butter", "sugar", "bake", "knead", "dough", "yeast", "pan"],
    "sailing": ["wind", "harbour", "mast", "rope", "tide", "anchor", "keel", "sail", "storm", "deck", "crew"],
    "gardens": ["rose", "soil", "spade", "seed", "hedge", "lawn", "bloom", "root", "rain", "compost", "leaf"],
}


def several_labels(name: str) -> list[str]:
    """None of a class that begins late in the alphabet, else its name, and that of all these."""
    return [] if name[0] >= "s" else sorted([name, "early"])


def write_dataset(folder: Path, columns: dict[str, list[Any]], profile: dict[str, Any]) -> Path:
    """A committed dataset folder of one row file; rows of a class also have a number and labels that it tells."""
    folder.mkdir(parents=True)
    names = columns["label"].to_pylist()
    classes = sorted({name for name in names if name is not None})
    if classes:
        numbers = [None if name is None else 2.5 * classes.index(name) for name in names]
        columns = {**columns, "number": pa.array(numbers, pa.float64())}
        several = [None if name is None else several_labels(name) for name in names]
        columns = {**columns, "labels": pa.array(several, pa.list_(pa.string()))}
        told = {"number": {"rows": sum(name is not None for name in names)}, "labels": tallied(several)}
        profile = {**profile, "targets": {**profile.get("targets", {}), **told}}
    pq.write_table(pa.table(columns), folder / "rows-00000.parquet")
    counts = Counter(label for label in columns["label"].to_pylist() if label is not None)
    rows = len(columns["label"])
    known = {"rows": rows, "labelled": sum(counts.values()), "classes": sorted(counts), "class_counts": dict(counts)}
    (folder / "profile.json").write_text(json.dumps({**profile, **known}))
    data = (folder / "rows-00000.parquet").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    files = [{"path": "rows-00000.parquet", "size": len(data), "sha256": digest}]
    (folder / "manifest.json").write_text(json.dumps({"files": files, "digest": digest}))
    return folder


def text_dataset(folder: Path, rows: int = 90, labelled: bool = True, seed: int = 0) -> Path:
    """Documents of eight to thirty words of one topic, its name as label."""
    random = np.random.default_rng(seed)
    names = sorted(TOPICS)
    labels = [names[row % len(names)] for row in range(rows)]
    texts = [" ".join(random.choice(TOPICS[label], int(random.integers(8, 30)))) for label in labels]
    kept: list[str | None] = [*labels] if labelled else [None] * rows
    columns = {"text": texts, "label": pa.array(kept, pa.string()), "source": [f"toy.csv:{row}" for row in range(rows)]}
    profile = {"modality": "text", "characters": sum(map(len, texts)), "width": 0, "height": 0, "channels": 0}
    tags = [["long" if len(word) > 4 else "short" for word in text.split()] for text in texts]
    # A "translation": the first words, the last of them first.
    told = [" ".join(reversed(text.split()[:4])) for text in texts]
    counts = {"rows": rows, "numbers": {"mean": sum(map(len, told)) / rows, "max": float(max(map(len, told)))}}
    targets = {"tags": tallied(tags), "translation": counts}
    return write_dataset(folder, {**columns, "tags": tags, "translation": told}, {**profile, "targets": targets})


def tallied(tags: Sequence[Sequence[str | None] | None]) -> dict[str, Any]:
    """What a profile says of tags or labels."""
    counts = Counter(tag for row in tags for tag in row or () if tag is not None)
    return {"rows": sum(row is not None for row in tags), "classes": sorted(counts), "class_counts": dict(counts)}


def png(pixels: Any) -> bytes:
    """The file of a picture (H, W, 3) uint8."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def image_text_dataset(folder: Path, rows: int = 60, labelled: bool = True, seed: int = 0) -> Path:
    """The pictures of `image_dataset`, each with a sentence that says where it is bright, and a number of its own."""
    image_dataset(folder / "pictures", rows, labelled, seed)
    table = pq.read_table(folder / "pictures" / "rows-00000.parquet")
    names = ["left", "middle", "top"]
    texts = [f"Bright at the {names[row % 3]} number {row}" for row in range(rows)]
    columns = {**{name: table[name] for name in table.column_names}, "text": texts}
    sizes = {"width": 8, "height": 8, "channels": 3}
    return write_dataset(
        folder / "pairs", columns, {"modality": "image_text", "characters": sum(map(len, texts)), **sizes}
    )


def protein_dataset(folder: Path, rows: int = 60, labelled: bool = True, seed: int = 0) -> Path:
    """Chains of 12 to 60 residues: mostly helix formers, mostly strand formers, or a repeat."""
    random = np.random.default_rng(seed)
    kinds = {"helix": "AELKMQR", "repeat": "GPS", "strand": "VIYFTW"}
    names = sorted(kinds)
    labels = [names[row % len(names)] for row in range(rows)]
    chains = ["".join(random.choice(list(kinds[label]), int(random.integers(12, 60)))) for label in labels]
    kept: list[str | None] = [*labels] if labelled else [None] * rows
    sources = [f"toy.fasta:{row}" for row in range(rows)]
    # Every ninth residue is one of which nothing is known.
    tags: list[list[str | None]] = [
        [None if place % 9 == 0 else "G" if letter in "GPS" else "X" for place, letter in enumerate(chain)]
        for chain in chains
    ]
    # Residues of one letter of each kind touch.
    sticky = [[place for place, letter in enumerate(chain) if letter in "AGV"] for chain in chains]
    contacts = [[end for i in row for j in row if j - i >= 6 for end in (i, j)] for row in sticky]
    columns = {"protein": chains, "label": pa.array(kept, pa.string()), "source": sources, "tags": tags}
    columns["contacts"] = pa.array(contacts, pa.list_(pa.int32()))
    targets = {"tags": tallied(tags), "contacts": {"rows": rows}}
    known = {"modality": "protein", "characters": sum(map(len, chains)), "targets": targets}
    return write_dataset(folder, columns, known)


def image_dataset(folder: Path, rows: int = 60, labelled: bool = True, seed: int = 0) -> Path:
    """Pictures of 8 x 8 pixels: bright left, bright top, or bright middle, in noise; what is bright is in a box."""
    random = np.random.default_rng(seed)
    names = ["left", "middle", "top"]
    labels, images = [names[row % 3] for row in range(rows)], []
    for label in labels:
        pixels = random.integers(0, 90, (8, 8, 3))
        area = {
            "left": (slice(None), slice(0, 4)),
            "top": (slice(0, 4), slice(None)),
            "middle": (slice(2, 6), slice(2, 6)),
        }
        pixels[area[label]] += 150
        images.append(png(pixels.astype(np.uint8)))
    kept: list[str | None] = [*labels] if labelled else [None] * rows
    sizes = pa.array([8] * rows, pa.int32())
    columns = {
        "image": images, "width": sizes, "height": sizes, "channels": pa.array([3] * rows, pa.int32()),
        "label": pa.array(kept, pa.string()), "source": [f"toy.zip:{row}.png" for row in range(rows)],
    }  # fmt: skip
    profile = {"modality": "image", "characters": 0, "width": 8, "height": 8, "channels": 3}
    if labelled:
        sides = {"left": (0, 0, 4, 8), "top": (0, 0, 8, 4), "middle": (2, 2, 4, 4)}
        boxes = [[dict(zip(("label", "x", "y", "width", "height"), (one, *sides[one]), strict=True))] for one in labels]
        columns["boxes"] = pa.array(boxes, Boxes.arrow())
        profile["targets"] = {"boxes": tallied([[one] for one in labels])}
    return write_dataset(folder, columns, profile)


def facts(folder: Path) -> DatasetFacts:
    """Of a dataset folder, as the API would know them."""
    profile = json.loads((folder / "profile.json").read_text())
    return DatasetFacts.model_validate(
        {"id": "ds_toy", **{k: v for k, v in profile.items() if k in DatasetFacts.model_fields}}
    )


def order(workdir: Path, spec: dict[str, Any], datasets: dict[str, Path], **fields: Any) -> RunOrder:
    """Write `run.json` of a spec resolved against its dataset; returns what was written."""
    workdir.mkdir(parents=True, exist_ok=True)
    sent = JOB_SPEC.validate_python(spec)
    resolved = resolve(sent, facts(datasets[sent.dataset]), fields.pop("base", None))
    paths = {name: str(path) for name, path in datasets.items()}
    made = RunOrder(spec=resolved, datasets=paths, cache=str(workdir.parent / "cache"), threads=1, **fields)
    (workdir / "run.json").write_text(made.model_dump_json())
    return made


def events(workdir: Path, type: str | None = None) -> list[dict[str, Any]]:
    """The events of a run, of one type or all."""
    lines = [json.loads(line) for line in (workdir / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if type is None or line["type"] == type]


def series(workdir: Path) -> dict[tuple[int, str], Any]:
    """Every point of a run that is a function of data, spec and seed."""
    rows = [
        (event["step"], name, value) for event in events(workdir, "metrics") for name, value in event["values"].items()
    ]
    return {(step, name): value for step, name, value in rows if not name.startswith(("time/", "throughput"))}


class Interrupted(FileContext):
    """A run directory whose run is told to pause once it has trained `after` steps."""

    def __init__(self, workdir: Path, after: int) -> None:
        super().__init__(workdir)
        self._left, self._training = after + 1, False

    def emit(self, type: str, **fields: Any) -> None:
        self._training |= fields.get("stage") == "training"
        super().emit(type, **fields)

    def should_stop(self) -> Any:
        self._left -= self._training
        return "pause" if self._left <= 0 else None
