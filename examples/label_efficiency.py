"""How many labels pretraining saves on real data: one `label_efficiency` job over HTTP, and its report.

    python -m examples.label_efficiency fsdd --data ../shared/data --labels 5 20 50 --out report
    python -m examples.label_efficiency 20newsgroups --data ../shared/data --arms probe classical --minutes 10

Uploads the pool, the largest labelled set and the test set, pretrains, and lets the platform do the rest: every arm at
every number of labels and seed is a job of its own. Prints the curve and the labels saved; with `--out` the report's
files are kept (`report.html` is the one to look at).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from datetime import date
from pathlib import Path

from rich.table import Table

from examples.arms import TABLE_WIDTH, Bench, bars
from examples.experiments import EXPERIMENTS, Experiment
from examples.few_labels import pretrained
from examples.server import add_server_options, command, server_of
from groundwork.client import Client, Json

ARMS = ("full", "lora", "probe", "knn", "self_training", "scratch", "classical")
USUAL = ("full", "probe", "scratch", "classical")


def most_labelled(data: Path, experiment: Experiment) -> Path:
    """The largest labelled set there is."""
    found = (data / experiment.folder).glob(f"train_*.{experiment.ending}")
    return max(found, key=lambda path: path.stat().st_size)


def table_of(name: str, report: Json) -> Table:
    """A line for each number of labels, an arm a column: the mean score, and its 95 % interval with several seeds."""
    table = Table(title=f"{name}: {report['metric']} on the test rows", width=TABLE_WIDTH)
    for column in ("labels", *report["curves"]):
        table.add_column(column)
    cells: dict[str, dict[str, str]] = {}
    for arm, points in report["curves"].items():
        for point in points:
            labels = "all" if point["labels"] is None else str(point["labels"])
            sure = "" if point["low"] is None else f" ({point['low']:.3f} to {point['high']:.3f})"
            cells.setdefault(labels, {})[arm] = f"{point['mean']:.3f}{sure}, {point['minutes']:.1f} min"
    for labels, row in cells.items():
        table.add_row(labels, *(row.get(arm, "") for arm in report["curves"]))
    return table


def told(row: Json) -> str:
    """A saving in one line."""
    labels = "all" if row["labels"] is None else row["labels"]
    if row["saved"] is None:
        reach = "does so with fewer" if row["least"] else "never does"
        return f"{row['arm']} at {labels}: {row['score']:.3f}; within what was measured {row['other']} {reach}"
    bounds = ["beyond what was measured" if row[side] is None else f"{row[side]:,.0f}" for side in ("low", "high")]
    return (
        f"{row['arm']} at {labels}: {row['score']:.3f} with {row['rows']:,.0f} rows, {row['other']} needs "
        f"{row['needed']:,.0f}: {row['saved']:,.0f} labels saved (95 %: {bounds[0]} to {bounds[1]})"
    )


def measure(bench: Bench, name: str, options: argparse.Namespace) -> tuple[Json, Json]:
    """The finished job, and what it took to pretrain."""
    experiment = EXPERIMENTS[name]
    root = options.data / experiment.folder
    job, minutes = pretrained(bench, experiment, options.data, options)
    pretraining = {
        "objective": job["spec"]["objective"]["name"], "minutes": minutes, "steps": job["progress"]["step"],
    }  # fmt: skip
    spec = {
        "type": "label_efficiency",
        "model": job["result"]["model"],
        "dataset": bench.dataset(most_labelled(options.data, experiment), experiment.columns),
        "test_dataset": bench.dataset(root / f"test.{experiment.ending}", experiment.columns),
        # All arms read what the probe of this set reads: the window of neighbours that the classical arm has too.
        "task": experiment.task | experiment.probe,
        "labels": options.labels or [size for size in experiment.sizes if isinstance(size, int)],
        "seeds": options.seeds,
        "arms": options.arms,
        # Three of 2,000 test rows of either set of news are near duplicates of training rows, and every variant of a
        # scanned protein is one of every other: the job's warnings name them.
        "allow_leakage": True,
    }
    return bench.run("label efficiency", spec), pretraining


def write(name: str, pretraining: Json, report: Json, folder: Path) -> None:
    """Keep the numbers and how they were made as `label_efficiency_<set>.json`."""
    result = {
        "set": name, "date": date.today().isoformat(), "machine": platform.machine(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"), "command": command("label_efficiency"),
        "pretraining": pretraining, **{key: report[key] for key in ("metric", "curves", "labels_saved")},
    }  # fmt: skip
    (folder / f"label_efficiency_{name}.json").write_text(json.dumps(result, indent=1))


def main() -> int:
    """Parse, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=sorted(EXPERIMENTS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minutes", type=float, help="of pretraining")
    parser.add_argument("--steps", type=int, help="of pretraining, instead of minutes: the same on any machine")
    parser.add_argument("--objective", help="of pretraining, instead of this set's own")
    parser.add_argument("--labels", type=int, nargs="+", help="numbers of them, of each class where there are classes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(USUAL))
    parser.add_argument("--out", type=Path, help="folder for the report")
    parser.add_argument("--model", help="pretrained before, at --url; instead of pretraining one")
    add_server_options(parser)
    options = parser.parse_args()
    if not (options.data / EXPERIMENTS[options.set].folder).is_dir():
        sys.exit(f"no folder {options.data / EXPERIMENTS[options.set].folder}; give --data")
    with tempfile.TemporaryDirectory(prefix="groundwork-label-efficiency-") as name:
        folder = Path(name)
        with server_of(options, folder) as (url, key), Client(url, key) as client, bars() as progress:
            job, pretraining = measure(Bench(client, folder, progress), options.set, options)
            kept = options.out or folder / "report"
            client.jobs.download_files(job["id"], kept)
        report = json.loads((kept / "report.json").read_text())
        progress.console.print(table_of(options.set, report))
        for row in report["labels_saved"]:
            progress.console.print(told(row))
        if options.out:
            write(options.set, pretraining, report, options.out)
            progress.console.print(f"{kept / 'report.html'} (made by: {command('label_efficiency')})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
