"""What pretraining is worth on real data: the score by number of labels, over HTTP.

    python -m examples.few_labels 20newsgroups --data ../shared/data
    python -m examples.few_labels cifar10 --data ../shared/data --sizes 10 50 --minutes 35
    python -m examples.few_labels cifar10 --data ../shared/data --objective mae --arms probe --minutes 3
    python -m examples.few_labels secondary_structure --data ../shared/data --sizes 100 --arms probe

The data folder holds, for each set, an unlabelled pool, labelled sets `train_N` of N items per class (of proteins: N
items in all) and a `test` set,
with `baselines.json` beside them (classical models on the same pool and labels). Prints one table and, with `--out`,
writes it as JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shlex
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.arms import Bench, bars
from examples.scores import Score, accuracy, tag_accuracy
from examples.server import serving
from groundwork.client import Client, Json

# What each arm fine-tunes, and from where.
ARMS: dict[str, tuple[str, str]] = {
    "probe": ("linear_probe", "pretrained"),
    "full": ("full", "pretrained"),
    "scratch": ("full", "random"),
}


@dataclass(frozen=True)
class Experiment:
    """One data set: where it lies, how it is pretrained, what is learned from its labels.

    Attributes:
        folder, pool, ending: of the files.
        sizes: labelled sets.
        minutes, objective: of pretraining.
        task: of fine-tuning, less its mode.
        probe: more settings of the task, of the probe's arm only.
        score: of the answers on the test set; `metric` is its name.
        pretrain: more fields of the pretraining job.
    """

    folder: str
    pool: str
    ending: str
    sizes: tuple[int, ...]
    minutes: float
    objective: Json
    task: Json = field(default_factory=lambda: {"name": "classification"})
    probe: Json = field(default_factory=dict)
    score: Score = accuracy
    metric: str = "accuracy"
    pretrain: Json = field(default_factory=dict)


EXPERIMENTS = {
    "20newsgroups": Experiment(
        "text/20newsgroups", "unlabeled.jsonl", "csv", (5, 20, 100), 30, {"name": "span_contrast"}
    ),
    "ag_news": Experiment("text/ag_news", "unlabeled.txt", "csv", (10, 50, 250), 10, {"name": "span_contrast"}),
    "cifar10": Experiment("image/cifar10", "unlabeled.zip", "zip", (10, 50, 250), 35, {"name": "simclr"}),
    "secondary_structure": Experiment(
        "protein/secondary_structure",
        "unlabeled.fasta",
        "jsonl",
        (100, 1000, 4000),
        45,
        {"name": "mlm"},
        task={"name": "tagging"},
        probe={"context": 8},  # the window of 17 residues that the baseline sees
        score=tag_accuracy,
        metric="Q3",
    ),
    "fsdd": Experiment("audio/fsdd", "unlabeled.zip", "zip", (5, 20, 50), 30, {"name": "simclr"}),
}


def read_test(path: Path) -> list[tuple[Any, Any]]:
    """The test rows as (text, chain, or bytes of a picture or a sound; label, or the whole row of JSON lines)."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [(row["sequence"], row) for row in rows]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [(row["text"], row["label"]) for row in csv.DictReader(file)]
    with zipfile.ZipFile(path) as archive:
        return [(archive.read(name), name.split("/")[0]) for name in archive.namelist() if not name.endswith("/")]


def best_baseline(data: Path, folder: str, size: int) -> tuple[str, float]:
    """The strongest classical model at this number of labels."""
    known = json.loads((data / "baselines.json").read_text())[folder]
    at_size = {name.split("@")[0]: score for name, score in known.items() if name.endswith(f"@{size}")}
    name = max(at_size, key=lambda key: at_size[key])
    return name, at_size[name]


def measure(bench: Bench, experiment: Experiment, data: Path, options: argparse.Namespace) -> tuple[Json, list[Json]]:
    """Pretrain once, then fine-tune and train from scratch at each number of labels, for each seed.

    Returns:
        The finished pretraining job, and a row for each number of labels.
    """
    root = data / experiment.folder
    pool = bench.dataset(root / experiment.pool)
    test = read_test(root / f"test.{experiment.ending}")
    spec = {
        "type": "pretrain",
        "dataset": pool,
        "objective": {"name": options.objective} if options.objective else experiment.objective,
        "budget": {"steps": options.steps} if options.steps else {"minutes": options.minutes or experiment.minutes},
        **experiment.pretrain,
    }
    pretraining = bench.run("pretrain", spec)
    base = pretraining["result"]["model"]
    rows: list[Json] = []
    for size in options.sizes or experiment.sizes:
        train = bench.dataset(root / f"train_{size}.{experiment.ending}")
        scores: dict[str, list[float]] = {arm: [] for arm in options.arms}
        for seed in range(options.seeds):
            common = {"type": "finetune", "dataset": train, "model": base, "seed": seed}
            for arm in scores:
                mode, start = ARMS[arm]
                task = {**experiment.task, "mode": mode, **(experiment.probe if arm == "probe" else {})}
                title = f"{size} labels, seed {seed}, {arm}"
                job = bench.run(title, {**common, "task": task, "initialization": start})
                scores[arm].append(bench.score(job["result"]["model"], test, experiment.score))
        name, bar = best_baseline(data, experiment.folder, size)
        minutes = {
            arm: mean(bench.minutes[f"{size} labels, seed {s}, {arm}"] for s in range(options.seeds)) for arm in scores
        }
        rows.append(
            {
                "labels_per_class": size,
                "scores": scores,
                "minutes": minutes,
                "baseline": name,
                "baseline_score": bar,
            }
        )
    return pretraining, rows


def shown(values: list[float]) -> str:
    """Mean and, with several seeds, the standard deviation."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def main() -> int:
    """Parse, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=sorted(EXPERIMENTS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minutes", type=float, help="of pretraining")
    parser.add_argument("--steps", type=int, help="of pretraining, instead of minutes: the same on any machine")
    parser.add_argument("--sizes", type=int, nargs="*", help="labels per class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--objective", help="of pretraining, instead of this set's own")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--out", type=Path, help="folder for the result as JSON")
    options = parser.parse_args()
    experiment = EXPERIMENTS[options.set]
    if not (options.data / experiment.folder).is_dir():
        sys.exit(f"no folder {options.data / experiment.folder}; give --data")
    with tempfile.TemporaryDirectory(prefix="groundwork-few-labels-") as name:
        folder = Path(name)
        with serving(folder) as (url, key), Client(url, key) as client, bars() as progress:
            bench = Bench(client, folder, progress)
            job, rows = measure(bench, experiment, options.data, options)
    pretraining = bench.minutes["pretrain"]
    table = Table(
        title=f"{options.set}: test {experiment.metric}, {options.seeds} seeds; "
        f"pretraining took {pretraining:.1f} minutes"
    )
    for column in ("labels per class", "best classical", *options.arms, "minutes each"):
        table.add_column(column)
    for row in rows:
        bar = f"{row['baseline_score']:.3f} ({row['baseline']})"
        each = " / ".join(f"{row['minutes'][arm]:.1f}" for arm in options.arms)
        table.add_row(str(row["labels_per_class"]), bar, *(shown(row["scores"][arm]) for arm in options.arms), each)
    Console(width=140).print(table)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {
            "set": options.set,
            "date": date.today().isoformat(),
            "machine": platform.machine(),
            "pretraining_minutes": pretraining,
            "objective": job["spec"]["objective"]["name"],
            "progress": job["progress"],
            "metric": experiment.metric,
            "rows": rows,
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
            "command": shlex.join(["python", "-m", "examples.few_labels", *sys.argv[1:]]),
        }
        name = options.set if options.objective is None else f"{options.set}_{options.objective}"
        (options.out / f"few_labels_{name}.json").write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
