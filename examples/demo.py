"""`make demo`: from unlabelled data to served models, over HTTP only, on embedded defaults.

Pictures (handwritten digits, SimCLR) and texts (docstrings of the installed packages): upload a pool, pretrain,
fine-tune on a few labels, compare with training from scratch and with a simple baseline, download, call the endpoints.
Exits 0 only if every step truly happened.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from examples import datasets
from examples.arms import Bench, bars, item_of
from examples.server import serving
from groundwork.client import Client, Json

LOAD_IN_A_FRESH_PROCESS = """
import base64, json, sys
from ssl_core.inference import load
order = json.load(sys.stdin)
items = [i["text"] if "text" in i else base64.b64decode(i["image"]) for i in order["items"]]
print(json.dumps(load(order["folder"]).embed(items).tolist()))
"""


@dataclass(frozen=True)
class Story:
    """One modality's part of the demo."""

    title: str
    split: datasets.Split
    labels_per_class: int
    pretrain: Json
    finetune: Json
    baseline_name: str
    baseline: Callable[[datasets.Split], float]


def stories() -> list[Story]:
    """The two rows of the table."""
    return [
        Story(
            title="digits (pictures)",
            split=datasets.digits(5),
            labels_per_class=5,
            # With few kinds of pictures most of a batch's nearest neighbours are of one's own kind: a high temperature
            # pushes them apart less than the default, which is made for photographs.
            pretrain={"objective": {"name": "simclr", "temperature": 0.5}, "budget": {"minutes": 1}},
            finetune={"task": {"name": "classification", "mode": "linear_probe"}},
            baseline_name="raw pixels, nearest neighbour",
            baseline=nearest_pixels,
        ),
        Story(
            title="docstrings (texts)",
            split=datasets.docstrings(10),
            labels_per_class=10,
            pretrain={"objective": {"name": "span_contrast"}, "budget": {"minutes": 1.5}},
            finetune={"task": {"name": "classification", "mode": "linear_probe"}},
            baseline_name="TF-IDF + logistic regression",
            baseline=tfidf_regression,
        ),
    ]


def nearest_pixels(split: datasets.Split) -> float:
    """1-nearest-neighbour on raw pixels, fitted on the labels."""
    import numpy as np
    from PIL import Image
    from sklearn.neighbors import KNeighborsClassifier

    def pixels(rows: list[tuple[Any, str]]) -> Any:
        return np.stack(
            [np.asarray(Image.open(io.BytesIO(picture)), dtype=np.float32).ravel() for picture, _ in rows]
        )

    model = KNeighborsClassifier(1).fit(pixels(split.train), [label for _, label in split.train])
    return float(model.score(pixels(split.test), [label for _, label in split.test]))


def tfidf_regression(split: datasets.Split) -> float:
    """Logistic regression on TF-IDF whose vocabulary and weights are fitted on the pool: it sees the texts we see."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(split.pool)
    model = LogisticRegression(C=10, max_iter=2000)
    model.fit(vectorizer.transform([text for text, _ in split.train]), [label for _, label in split.train])
    return float(
        model.score(
            vectorizer.transform([text for text, _ in split.test]), [label for _, label in split.test]
        )
    )


def play(bench: Bench, story: Story) -> tuple[list[str], float]:
    """One row of the table, and the largest difference between endpoint and downloaded model."""
    pictures = isinstance(story.split.pool[0], bytes)
    write_pool = datasets.write_pictures if pictures else datasets.write_texts
    write_rows = datasets.write_labelled_pictures if pictures else datasets.write_labelled_texts
    ending = ("zip", "zip") if pictures else ("jsonl", "csv")
    name = story.title.split()[0]
    pool = bench.dataset(write_pool(bench.folder / f"{name}_pool.{ending[0]}", story.split.pool))
    few = bench.dataset(write_rows(bench.folder / f"{name}_few.{ending[1]}", story.split.train))

    base = bench.run(f"pretrain {name}", {"type": "pretrain", "dataset": pool, **story.pretrain})["result"][
        "model"
    ]
    finetune = {"type": "finetune", "dataset": few, "model": base, **story.finetune}
    tuned = bench.run(f"fine-tune {name}", finetune)["result"]["model"]
    scratch_task = {
        **story.finetune,
        "task": {**story.finetune["task"], "mode": "full"},
        "initialization": "random",
    }
    scratch = bench.run(f"from scratch {name}", {**finetune, **scratch_task})["result"]["model"]

    difference = max(compare_download(bench, model, story.split.test[:8]) for model in (base, tuned))
    scores = [
        bench.score(scratch, story.split.test),
        story.baseline(story.split),
        bench.score(tuned, story.split.test),
    ]
    row = [
        story.title,
        str(story.labels_per_class),
        *(f"{score:.3f}" for score in scores),
        story.baseline_name,
    ]
    return [*row, f"{bench.minutes[f'pretrain {name}']:.1f}"], difference


def compare_download(bench: Bench, model: str, rows: list[tuple[Any, str]]) -> float:
    """Download a model, load it in a fresh process, embed there and through the endpoint; the largest difference."""
    archive = bench.client.models.download(model, bench.folder / f"{model}.zip")
    folder = bench.folder / model
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    served = bench.client.embed(model, [item_of(value) for value, _ in rows])
    items = [
        {"text": v} if isinstance(v, str) else {"image": item_of(v)["image"].split(",")[1]} for v, _ in rows
    ]
    order = json.dumps({"folder": str(folder), "items": items})
    done = subprocess.run(
        [sys.executable, "-c", LOAD_IN_A_FRESH_PROCESS],
        input=order,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the downloaded model did not load: {done.stderr[-1000:]}")
    local = json.loads(done.stdout)
    return max(
        abs(a - b)
        for ours, theirs in zip(served, local, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )


def main() -> int:
    """Run the demo; the exit code says whether every step happened."""
    console = Console(width=130)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="groundwork-demo-") as name:
        folder = Path(name)
        console.print("Starting groundwork serve on a free port, data in a temporary folder …")
        with serving(folder) as (url, key), Client(url, key) as client, bars() as progress:
            progress.console.print(f"Ready at {url}")
            bench = Bench(client, folder, progress)
            played = [play(bench, story) for story in stories()]
    table = Table(title="Accuracy on the test set with a few labels")
    for column in (
        "data",
        "labels per class",
        "from scratch",
        "simple baseline",
        "pretrained",
        "the baseline is",
        "pretraining minutes",
    ):
        table.add_column(column)
    for row, _ in played:
        table.add_row(*row)
    console.print(table)
    difference = max(difference for _, difference in played)
    console.print(
        "Downloaded models, loaded in fresh processes, give the endpoint's embeddings: "
        f"largest difference {difference:.1e}."
    )
    console.print(f"{(time.monotonic() - started) / 60:.1f} minutes.")
    return 0 if difference < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
