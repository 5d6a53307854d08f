"""What pretraining is worth on real data: the score by number of labels, over HTTP.

    python -m examples.few_labels 20newsgroups --data ../shared/data
    python -m examples.few_labels cifar10 --data ../shared/data --sizes 10 50 --minutes 35
    python -m examples.few_labels cifar10 --data ../shared/data --objective mae --arms probe --minutes 3
    python -m examples.few_labels secondary_structure contacts gb1 --data ../shared/data --seeds 1

Sets that are pretrained alike on one pool share the pretraining, where they are named in one call.

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
import sys
import tempfile
import zipfile
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from examples.arms import TABLE_WIDTH, Bench, bars
from examples.experiments import ARMS, EXPERIMENTS, USUAL, Experiment
from examples.server import add_server_options, command, server_of
from groundwork.client import Client, Json


def read_test(path: Path) -> list[tuple[Any, Any]]:
    """The test rows as (text, chain, or bytes of a picture or a sound; label, or the whole row of JSON lines)."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [(row.get("sequence") or row["source"], row) for row in rows]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [(row["text"], row["label"]) for row in csv.DictReader(file)]
    with zipfile.ZipFile(path) as archive:
        if "annotations.json" in archive.namelist():
            return read_boxes(archive)
        return [(archive.read(name), name.split("/")[0]) for name in archive.namelist() if not name.endswith("/")]


def read_boxes(archive: zipfile.ZipFile) -> list[tuple[Any, Any]]:
    """Pictures and their objects, by COCO's list."""
    told = json.loads(archive.read("annotations.json"))
    names = {each["id"]: each["name"] for each in told["categories"]}
    objects: dict[int, list[Json]] = {each["id"]: [] for each in told["images"]}
    for each in told["annotations"]:
        objects[each["image_id"]].append({"label": names[each["category_id"]], "box": each["bbox"]})
    return [
        (archive.read(f"images/{each['file_name']}"), {"objects": objects[each["id"]]}) for each in told["images"]
    ]


def best_baseline(data: Path, experiment: Experiment, size: int | str) -> tuple[str, float]:
    """The strongest classical model at this number of labels."""
    known = json.loads((data / "baselines.json").read_text())[experiment.folder]
    named = {name: score for name, score in known.items() if name.startswith(experiment.baselines)}
    at_size = {name.removesuffix(f"@{size}"): score for name, score in named.items() if name.endswith(f"@{size}")}
    name = max(at_size, key=lambda key: at_size[key])
    return name, at_size[name]


def pool_of(bench: Bench, experiment: Experiment, data: Path) -> Path:
    """The unlabelled file; of several the lines of all."""
    folder = data / experiment.folder
    if isinstance(experiment.pool, str):
        return (folder / experiment.pool).resolve()
    joined = bench.folder / f"pool_{'_'.join(experiment.pool)}"
    joined.write_bytes(b"".join((folder / name).read_bytes().rstrip(b"\n") + b"\n" for name in experiment.pool))
    return joined


def pretrained(bench: Bench, experiment: Experiment, data: Path, options: argparse.Namespace) -> tuple[Json, float]:
    """The finished pretraining job and its minutes; with `--model` the job that made this model."""
    if options.model:
        job = bench.client.jobs.get(bench.client.models.get(options.model).lineage["job"]).raw
        return job, (job["finished_at"] - job["started_at"]) / 60
    spec = {
        "type": "pretrain",
        "dataset": bench.dataset(pool_of(bench, experiment, data)),
        "objective": {"name": options.objective} if options.objective else experiment.objective,
        "budget": {"steps": options.steps} if options.steps else {"minutes": options.minutes or experiment.minutes},
        **experiment.pretrain,
    }
    return bench.run("pretrain", spec), bench.minutes["pretrain"]


def measure(bench: Bench, experiment: Experiment, data: Path, options: argparse.Namespace, base: str) -> list[Json]:
    """Fine-tune and train from scratch at each number of labels, for each seed: a row for each number."""
    root = data / experiment.folder
    test = read_test(root / f"test.{experiment.ending}")
    rows: list[Json] = []
    for size in options.sizes or experiment.sizes:
        train = bench.dataset(root / f"train_{size}.{experiment.ending}", experiment.columns)
        scores: dict[str, list[float]] = {arm: [] for arm in options.arms if arm in experiment.arms}
        for seed in range(options.seeds):
            common = {"type": "finetune", "dataset": train, "model": base, "seed": seed, **experiment.finetune}
            if options.finetune_minutes:
                common["budget"] = {"minutes": options.finetune_minutes}
            for arm in scores:
                settings, start = ARMS[arm]
                chosen = settings if "probe" in experiment.arms else {}
                task = {**experiment.task, **chosen, **(experiment.probe if arm == "probe" else {})}
                title = f"{size} labels, seed {seed}, {arm}"
                job = bench.run(title, {**common, "task": task, "initialization": start})
                scores[arm].append(bench.score(job["result"]["model"], test, experiment.score))
        name, bar = best_baseline(data, experiment, size)
        minutes = {
            arm: mean(bench.minutes[f"{size} labels, seed {s}, {arm}"] for s in range(options.seeds)) for arm in scores
        }
        rows.append(
            {
                "labels_per_class": int(size) if str(size).isdecimal() else size,
                "scores": scores,
                "minutes": minutes,
                "baseline": name,
                "baseline_score": bar,
            }
        )
    return rows


def measure_all(bench: Bench, options: argparse.Namespace) -> None:
    """Every set that was named: print its table and keep its result."""
    found: dict[str, tuple[Json, float]] = {}
    for name in options.sets:
        experiment = EXPERIMENTS[name]
        named = [experiment.pool] if isinstance(experiment.pool, str) else experiment.pool
        pools = [str((options.data / experiment.folder / one).resolve()) for one in named]
        alike = json.dumps([pools, experiment.objective, experiment.pretrain])
        if alike not in found:
            found[alike] = pretrained(bench, experiment, options.data, options)
        job, minutes = found[alike]
        rows = measure(bench, experiment, options.data, options, job["result"]["model"])
        bench.progress.console.print(table_of(name, rows, minutes, options))
        if options.out:
            write(name, (job, minutes), rows, options)


def shown(values: list[float]) -> str:
    """Mean and, with several seeds, the standard deviation."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def main() -> int:
    """Parse, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=sorted(EXPERIMENTS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minutes", type=float, help="of pretraining")
    parser.add_argument("--finetune-minutes", type=float, help="of each fine-tuning, instead of the recipe's")
    parser.add_argument("--steps", type=int, help="of pretraining, instead of minutes: the same on any machine")
    parser.add_argument("--sizes", nargs="*", help="labels per class, or the end of a labelled file's name")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--objective", help="of pretraining, instead of this set's own")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(USUAL))
    parser.add_argument("--out", type=Path, help="folder for the result as JSON")
    parser.add_argument("--model", help="pretrained before, at --url; instead of pretraining one")
    add_server_options(parser)
    options = parser.parse_args()
    for name in options.sets:
        if not (options.data / EXPERIMENTS[name].folder).is_dir():
            sys.exit(f"no folder {options.data / EXPERIMENTS[name].folder}; give --data")
    with tempfile.TemporaryDirectory(prefix="groundwork-few-labels-") as name:
        folder = Path(name)
        with server_of(options, folder) as (url, key), Client(url, key) as client, bars() as progress:
            bench = Bench(client, folder, progress)
            measure_all(bench, options)
    return 0


def table_of(name: str, rows: list[Json], minutes: float, options: argparse.Namespace) -> Table:
    """A line for each number of labels."""
    title = f"{name}: test {EXPERIMENTS[name].metric}, {options.seeds} seeds; pretraining took {minutes:.1f} minutes"
    table = Table(title=title, width=TABLE_WIDTH)
    arms = list(rows[0]["scores"])
    for column in ("labels per class", "best classical", *arms, "minutes each"):
        table.add_column(column)
    for row in rows:
        bar = f"{row['baseline_score']:.3f} ({row['baseline']})"
        each = " / ".join(f"{row['minutes'][arm]:.1f}" for arm in arms)
        table.add_row(str(row["labels_per_class"]), bar, *(shown(row["scores"][arm]) for arm in arms), each)
    return table


def write(name: str, pretraining: tuple[Json, float], rows: list[Json], options: argparse.Namespace) -> None:
    """Keep the result of a set as JSON."""
    job, minutes = pretraining
    options.out.mkdir(parents=True, exist_ok=True)
    result = {
        "set": name,
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "pretraining_minutes": minutes,
        "objective": job["spec"]["objective"]["name"],
        "progress": job["progress"],
        "metric": EXPERIMENTS[name].metric,
        "rows": rows,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "command": command("few_labels"),
    }
    file = name if options.objective is None else f"{name}_{options.objective}"
    (options.out / f"few_labels_{file}.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    sys.exit(main())
