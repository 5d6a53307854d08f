"""What pretraining on pictures with captions is worth: do pictures find their captions, and captions their pictures?

    python -m examples.pairs twemoji --data ../shared/data
    python -m examples.pairs twemoji --data ../shared/data --objective siglip --minutes 10 --seeds 1

Over HTTP: uploads the pairs, pretrains, embeds pictures and captions of the test sets apart from each other, and ranks
each side by the cosine with the other. The data folder holds, for each set, archives of pairs `pairs_train.zip` and
`pairs_test_<name>.zip`, with `baselines.json` beside the sets. Prints one table and, with `--out`, writes it as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from examples.arms import TABLE_WIDTH, Bench, bars, item_of
from examples.few_labels import shown
from examples.server import add_server_options, command, server_of
from groundwork.client import Client, Json

DEPTHS = (1, 5, 10)
"""k of recall at k."""
DIRECTIONS = {"picture_to_text": "i2t", "text_to_picture": "t2i"}
"""Direction: its name among the baselines."""


@dataclass(frozen=True)
class Experiment:
    """One data set: where it lies, its test sets, minutes of pretraining."""

    folder: str
    tests: tuple[str, ...]
    minutes: float


EXPERIMENTS = {"twemoji": Experiment("image_text/twemoji", ("variants", "unseen"), 25)}
# No word of learning: the recipe's model after one step at a rate that changes no weight to speak of.
_UNTRAINED: Json = {"budget": {"steps": 1}, "optimizer": {"learning_rate": 1e-9}}


def read_pairs(path: Path) -> list[tuple[bytes, str]]:
    """Picture files and captions of an archive, in the order of its `captions.jsonl`."""
    with zipfile.ZipFile(path) as archive:
        rows = [json.loads(line) for line in archive.read("captions.jsonl").decode().splitlines()]
        return [(archive.read(row["image"]), row["caption"]) for row in rows]


def recalls(pictures: NDArray[np.float64], captions: NDArray[np.float64]) -> dict[str, list[float]]:
    """Of each direction the share of rows whose partner is among the 1, 5 and 10 nearest by cosine.

    Args:
        pictures, captions: (N, D); row i of one belongs to row i of the other. A rival as near as the partner counts
            as nearer, so that a model whose vectors are all the same finds nothing.
    """
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (pictures, captions)]
    cosines = unit[0] @ unit[1].T
    found: dict[str, list[float]] = {}
    for direction, scores in zip(DIRECTIONS, (cosines, cosines.T), strict=True):
        nearer = (scores >= np.diag(scores)[:, None]).sum(1) - 1
        found[direction] = [float((nearer < depth).mean()) for depth in DEPTHS]
    return found


def baseline(data: Path, experiment: Experiment, test: str) -> dict[str, list[float]]:
    """Recalls of the classical model, as those of `recalls`."""
    known = json.loads((data / "baselines.json").read_text())[experiment.folder]
    return {
        direction: [known[f"{test}_ridge_{short}_R@{depth}"] for depth in DEPTHS]
        for direction, short in DIRECTIONS.items()
    }


def embedded(client: Client, model: str, items: list[Any]) -> NDArray[np.float64]:
    """(N, D) vectors of pictures, or of captions: the endpoint takes one side of a pair alone."""
    return np.array(client.embed(model, items))


def score(client: Client, model: str, pairs: list[tuple[bytes, str]]) -> dict[str, list[float]]:
    """`recalls` of a model over HTTP."""
    pictures = embedded(client, model, [item_of(picture) for picture, _ in pairs])
    return recalls(pictures, embedded(client, model, [{"text": caption} for _, caption in pairs]))


def measure(bench: Bench, experiment: Experiment, options: argparse.Namespace) -> tuple[list[Json], list[Json]]:
    """Pretrain and rank with each seed, and once without any training.

    Returns:
        The finished pretraining jobs, and a row for each test set: `untrained` and `baseline` are recalls of each
        direction, `pretrained` a list of them, one for each seed.
    """
    root = options.data / experiment.folder
    tests = {test: read_pairs(root / f"pairs_test_{test}.zip") for test in experiment.tests}
    spec = {
        "type": "pretrain",
        "dataset": bench.dataset(root / "pairs_train.zip"),
        "objective": {"name": options.objective},
        "budget": {"steps": options.steps} if options.steps else {"minutes": options.minutes or experiment.minutes},
    }
    untrained = bench.run("untrained", {**spec, **_UNTRAINED})["result"]["model"]
    rows: list[Json] = [
        {
            "test": test,
            "pairs": len(pairs),
            "baseline": baseline(options.data, experiment, test),
            "untrained": score(bench.client, untrained, pairs),
            "pretrained": [],
        }
        for test, pairs in tests.items()
    ]
    jobs = []
    for seed in range(options.seeds):
        jobs.append(bench.run(f"pretrain, seed {seed}", {**spec, "seed": seed}))
        for row in rows:
            row["pretrained"].append(score(bench.client, jobs[-1]["result"]["model"], tests[row["test"]]))
    return jobs, rows


def table_of(title: str, rows: list[Json]) -> Table:
    """Recalls at 1, 5 and 10, a line for each test set and direction."""
    table = Table(title=title)
    for column in ("test set", "R@1 / R@5 / R@10", "untrained", "classical", "pretrained"):
        table.add_column(column)
    for row in rows:
        for direction in DIRECTIONS:
            seeds = [run[direction] for run in row["pretrained"]]
            table.add_row(
                f"{row['test']} ({row['pairs']})",
                direction.replace("_", " "),
                *(" / ".join(f"{value:.3f}" for value in row[arm][direction]) for arm in ("untrained", "baseline")),
                " / ".join(shown(list(values)) for values in zip(*seeds, strict=True)),
            )
    return table


def main() -> int:
    """Parse, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=sorted(EXPERIMENTS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--objective", choices=("clip", "siglip"), default="clip")
    parser.add_argument("--minutes", type=float, help="of pretraining")
    parser.add_argument("--steps", type=int, help="of pretraining, instead of minutes: the same on any machine")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for the result as JSON")
    add_server_options(parser)
    options = parser.parse_args()
    experiment = EXPERIMENTS[options.set]
    if not (options.data / experiment.folder).is_dir():
        sys.exit(f"no folder {options.data / experiment.folder}; give --data")
    if options.seeds < 1:
        sys.exit("--seeds must be at least 1")
    with tempfile.TemporaryDirectory(prefix="groundwork-pairs-") as name:
        folder = Path(name)
        with server_of(options, folder) as (url, key), Client(url, key) as client, bars() as progress:
            bench = Bench(client, folder, progress)
            jobs, rows = measure(bench, experiment, options)
    minutes = mean(bench.minutes[f"pretrain, seed {seed}"] for seed in range(options.seeds))
    title = f"{options.set}: {options.objective}, {options.seeds} seeds, {minutes:.1f} minutes of pretraining each"
    Console(width=TABLE_WIDTH).print(table_of(title, rows))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {
            "set": options.set,
            "date": date.today().isoformat(),
            "machine": platform.machine(),
            "objective": options.objective,
            "pretraining_minutes": minutes,
            "progress": [job["progress"] for job in jobs],
            "recall_at": DEPTHS,
            "rows": rows,
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
            "command": command("pairs"),
        }
        name = options.set if options.objective == "clip" else f"{options.set}_{options.objective}"
        (options.out / f"pairs_{name}.json").write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
