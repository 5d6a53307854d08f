"""The engine alone: throughput, utilisation and peak memory of each objective on this machine.

    python -m benchmarks.engine                 # CPU rows, or GPU rows where torch sees a GPU
    python -m benchmarks.engine --only mlm --steps 60 --out benchmarks/results

Each row is a real run (ingest, prepare, train, export) in a process of its own on synthetic data, read from its own
series `throughput/…` and `time/…`; the first third of the steps is left out as warm-up.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Json = dict[str, Any]
SERIES = {
    "examples/s": "throughput/examples_per_second",
    "tokens/s": "throughput/tokens_per_second",
    "MFU": "throughput/mfu",
    "data wait": "time/data_wait_share",
    "memory MiB": "throughput/peak_memory_bytes",
}
CPU_ROWS: list[Json] = [
    {"title": "mlm text-small", "data": "text", "objective": {"name": "mlm"}, "backbone": "text-small"},
    {"title": "span_contrast, recipe", "data": "text", "objective": {"name": "span_contrast"}},
    {"title": "simclr, recipe, 32 px", "data": "image", "objective": {"name": "simclr"}},
    {"title": "simclr resnet18, 32 px", "data": "image", "objective": {"name": "simclr"}, "backbone": "image-resnet18"},
]
GPU_ROWS: list[Json] = [
    {
        "title": "mlm text-base",
        "data": "text",
        "objective": {"name": "mlm"},
        "backbone": "text-base",
        "batch_size": 256,
    },
    {
        "title": "mlm text-large",
        "data": "text",
        "objective": {"name": "mlm"},
        "backbone": "text-large",
        "batch_size": 128,
    },
    {
        "title": "span_contrast text-base",
        "data": "text",
        "objective": {"name": "span_contrast"},
        "backbone": "text-base",
    },
    {"title": "simclr resnet18", "data": "image", "objective": {"name": "simclr"}, "backbone": "image-resnet18"},
    {"title": "simclr resnet50", "data": "image", "objective": {"name": "simclr"}, "backbone": "image-resnet50"},
]


def write_text(path: Path, documents: int = 8000) -> Path:
    """Documents of 30 to 300 words, drawn by Zipf's law from 20,000."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlcumwfgyp", k=draw.randint(2, 9))) for _ in range(20_000)]
    weights = [1 / (rank + 10) for rank in range(len(words))]
    with path.open("w") as out:
        for _ in range(documents):
            out.write(json.dumps({"text": " ".join(draw.choices(words, weights, k=draw.randint(30, 300)))}) + "\n")
    return path


def write_images(path: Path, pictures: int = 4000) -> Path:
    """Smooth random colour fields of 32 x 32 pixels."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(pictures):
            small = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            small.resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "PNG")
            archive.writestr(f"{number:05d}.png", buffer.getvalue())
    return path


def engine(folder: Path, order: Json) -> Path:
    """Run the engine by hand on an order; its run folder."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(order))
    done = subprocess.run([sys.executable, "-m", "ssl_core.run", str(folder)], capture_output=True, text=True)
    verdict = json.loads((folder / "result.json").read_text())
    if verdict["status"] != "succeeded":
        raise RuntimeError(f"{folder.name}: {verdict} {done.stderr[-2000:]}")
    return folder


def dataset(folder: Path, upload: Path) -> Path:
    """Ingest a file into a canonical dataset folder."""
    spec = {"type": "ingest", "dataset": "ds_bench", "filename": upload.name}
    order = {"spec": spec, "datasets": {"ds_bench": str(upload)}, "cache": str(folder / "cache")}
    return engine(folder / f"ingest-{upload.stem}", order) / "artifact"


def facts(data: Path) -> Any:
    """What a recipe needs to know of it."""
    from ssl_core.spec import DatasetFacts

    profile = json.loads((data / "profile.json").read_text())
    known = {name: profile[name] for name in DatasetFacts.model_fields if name in profile}
    return DatasetFacts.model_validate({"id": "ds_bench", **known})


def measure(folder: Path, row: Json, data: Path, options: argparse.Namespace) -> Json:
    """One row: resolve, run, read the series."""
    from ssl_core.recipes import resolve
    from ssl_core.spec import JOB_SPEC

    wanted = {key: value for key, value in row.items() if key not in ("title", "data")}
    resources = {"queue": "gpu" if options.gpu else "cpu"}
    spec = {"type": "pretrain", "dataset": "ds_bench", "budget": {"steps": options.steps}, "resources": resources}
    if options.precision:
        spec["precision"] = options.precision
    resolved = resolve(JOB_SPEC.validate_python({**spec, **wanted}), facts(data))  # type: ignore[type-var]
    name = row["title"].replace(" ", "_").replace(",", "")
    order = {"spec": resolved.model_dump(mode="json"), "datasets": {"ds_bench": str(data)}}
    order |= {"cache": str(folder / "cache"), "threads": options.threads}
    run = engine(folder / name, order)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    points = [e["values"] for e in events if e["type"] == "metrics" and e["step"] > options.steps // 3]
    found = {title: statistics.median([p[s] for p in points if s in p] or [0.0]) for title, s in SERIES.items()}
    found["memory MiB"] /= 2**20
    parameters = json.loads((run / "artifact" / "config.json").read_text())["parameters"]
    precision = resolved.precision
    return {
        "row": row["title"],
        "precision": precision,
        "batch": resolved.batch_size,
        "parameters": parameters,
        **found,
    }


def device_name(gpu: bool) -> str:
    """What the numbers were taken on."""
    if gpu:
        import torch

        return torch.cuda.get_device_name(0)
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> int:
    """Measure the rows, print the table, keep it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose title holds this")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, help="intra-op threads; default: torch's choice")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: the recipe's")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    import torch

    options.gpu = torch.cuda.is_available()
    rows = [row for row in (GPU_ROWS if options.gpu else CPU_ROWS) if options.only in row["title"]]
    with tempfile.TemporaryDirectory(prefix="groundwork-bench-") as name:
        folder = Path(name)
        uploads = {"text": write_text(folder / "text.jsonl"), "image": write_images(folder / "image.zip")}
        data = {kind: dataset(folder, uploads[kind]) for kind in sorted({row["data"] for row in rows})}
        results = [measure(folder, row, data[row["data"]], options) for row in rows]
    device = device_name(options.gpu)
    table = Table(title=f"Engine on {device}, torch {torch.__version__}")
    for column in results[0]:
        table.add_column(column)
    for result in results:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in result.values()))
    Console(width=140).print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = {"date": date.today().isoformat(), "device": device, "command": " ".join(sys.argv[1:]), "rows": results}
    target = (
        options.out
        / f"engine_{'gpu' if options.gpu else 'cpu'}{'_' + options.precision if options.precision else ''}.json"
    )
    target.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
