"""Our side of one row: the product's own preparation, loader and trainer, timed as the peer times its steps.

    python -m benchmarks.peers.ours mlm --data DATA --work FOLDER --threads 1 [--profile]

DATA is the kit's data with its tokenizers, as `benchmarks.peers` makes it. Prints one line of JSON. The clock reads
where the trainer asks whether to stop, once before each step, so all that a step does is in it: reading, views, masks,
forward, backward, clipping, optimizer, series. On a GPU it waits for the queue at the first and the last timed step.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.engine import engine
from benchmarks.peers.rows import BY_NAME, Json, Row
from benchmarks.peers.shares import shares
from ssl_core.backbones import BACKBONES, EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.context import MemoryContext, Stopped, StopReason
from ssl_core.data.cache import prepared
from ssl_core.data.loader import Loader
from ssl_core.encoders import build_encoder
from ssl_core.learner import TrainStep
from ssl_core.machine import cpu_precision, keep_freed_memory
from ssl_core.modalities.base import Modality, Source
from ssl_core.spec import PretrainSpec, TrainPlan
from ssl_core.throughput import peak_flops, peak_memory, step_flops, synchronize
from ssl_core.trainer import train

TOKENIZERS = {"bpe": "bpe.json", "wordpiece": "wp.json"}


class Clock(MemoryContext):
    """Marks every step's beginning, and leaves at the last mark; a profile covers the timed steps."""

    def __init__(self, workdir: Path, options: argparse.Namespace) -> None:
        super().__init__(workdir)
        self.steps, self.warmup = options.steps, options.warmup
        self.marks: list[tuple[float, float]] = []
        self.profile = profile(activities=[ProfilerActivity.CPU]) if options.profile else None
        self.device = options.device

    def should_stop(self) -> StopReason | None:
        if len(self.marks) in (self.warmup, self.steps):
            synchronize(self.device)
        self.marks.append((time.perf_counter(), time.process_time()))
        if self.profile is not None and len(self.marks) == self.warmup + 1:
            self.profile.start()
        if len(self.marks) > self.steps:
            raise Stopped("cancel")
        return None

    def tell(self) -> Json:
        """The operators that took longest, to the error stream; `shares` by their kind."""
        if self.profile is None:
            return {}
        self.profile.stop()
        print(self.profile.key_averages().table("self_cpu_time_total", row_limit=25), file=sys.stderr)
        return {"shares": shares(self.profile, self.marks[-1][0] - self.marks[self.warmup][0])}


def dataset(row: Row, data: Path, work: Path) -> Path:
    """The kit's data as a canonical dataset, ingested once for all runs."""
    done = work / f"ingest-{Path(row.data).stem}" / "artifact"
    if done.exists():
        return done
    upload = data / row.data
    if upload.is_dir():
        upload = work / f"{row.data}.zip"
        with zipfile.ZipFile(upload, "w") as archive:
            for file in sorted((data / row.data).rglob("*.*")):
                archive.write(file, file.relative_to(data / row.data))
    spec = {"type": "ingest", "dataset": "ds_bench", "filename": upload.name}
    order = {"spec": spec, "datasets": {"ds_bench": str(upload)}, "cache": str(work / "cache")}
    return engine(done.parent, order) / "artifact"


def spec_of(row: Row, options: argparse.Namespace) -> PretrainSpec:
    """The row's job; `--recipe` takes the recipe's precision, dropout and GELU where the row has the peer's."""
    ours = dict(row.ours)
    optimizer = {"learning_rate": 1e-4, **ours.pop("optimizer", {})}
    objective, vocabulary = ours.pop("objective"), ours.pop("vocabulary", 0)
    ours.pop("part", None)
    kind = ours.pop("tokenizer", "wordpiece")
    length = ours.pop("length", 128)
    text = {"name": "text", "max_length": length, "tokenizer": kind, "special_tokens": kind == "wordpiece"}
    modality = ours.pop("modality", text | ({"vocab_size": max(512, vocabulary)} if vocabulary else {}))
    named = ours.pop("backbone", None)
    custom = {"name": "custom", "family": "transformer"} | ours
    shape = BACKBONES[named] if named else EncoderSpec.model_validate(custom)
    if options.recipe:
        exact = {"mlp": "gelu"} if shape.mlp == "gelu_tanh" else {}
        shape = shape.model_copy(update={"dropout": 0.0, **exact})
    return PretrainSpec.model_validate(
        {
            "dataset": "ds_bench", "objective": objective, "modality": modality, "backbone": shape.model_dump(),
            "budget": {"steps": 1000}, "batch_size": options.batch, "optimizer": optimizer, "validation_fraction": 0,
            "precision": _recipe_precision(options.device) if options.recipe else "fp32",
            "compile": options.recipe and options.device.type == "cuda",
        }
    )  # fmt: skip


def _recipe_precision(device: torch.device) -> str:
    return "bf16" if device.type == "cuda" else cpu_precision()


def real(loader: Loader, steps: range, modality: Modality) -> float:
    """What both sides count, over some steps: tokens that are no padding, pictures, or seconds of sound."""
    total = 0.0
    for step in steps:
        part = loader.read(step)
        if modality.name == "audio":
            window = int(loader.source.facts["samples"])
            total += float(part.raw["sounding"].clamp(max=window).sum()) / modality.model_dump()["sample_rate"]
            continue
        view = loader.batch(part, torch.device("cpu")).views[0] if modality.has_lengths else None
        total += float((view.segments >= 0).sum()) if isinstance(view, Tokens) else len(part.seeds)
    return total


def read_only(loader: Loader, clock: Clock) -> None:
    """Make batches and throw them away."""
    slices = loader.ahead(0)
    try:
        while True:
            clock.should_stop()
            loader.batch(next(slices), torch.device("cpu"))
    except Stopped:
        slices.close()


def learn(spec: PretrainSpec, source: Source, vocabulary: int, loader: Loader, clock: Clock) -> Json:
    """Train until the clock has had enough; the number of parameters and, on a GPU, the FLOPs of a step."""
    assert spec.backbone is not None
    torch.manual_seed(spec.seed)
    facts = source.facts | ({"vocab_size": vocabulary} if vocabulary else {})
    nets = spec.objective.build(build_encoder(spec.backbone, facts)).to(clock.device)
    told: Json = {"params": sum(parameter.numel() for parameter in nets.parameters())}
    if clock.device.type == "cuda":
        batch = loader.batch(loader.read(0), clock.device)
        with torch.autocast("cuda", torch.bfloat16, enabled=spec.precision == "bf16"):
            told["flops"] = step_flops(lambda: spec.objective.loss(nets, batch))
    try:
        train(TrainStep(spec.objective, nets), loader, TrainPlan.of(spec), clock)
    except Stopped:
        refused = [event["message"] for event in clock.events if event.get("code") == "compile_refused"]
        return told | ({"compile_refused": refused[0]} if refused else {})
    raise RuntimeError("the trainer ended before the clock")


def measure(row: Row, options: argparse.Namespace) -> Json:
    """One timed run."""
    spec = spec_of(row, options)
    assert spec.modality is not None
    modality = spec.modality
    data = dataset(row, options.data, options.work)
    kind = row.ours.get("tokenizer", "wordpiece")
    tokenizer = options.data / TOKENIZERS[kind] if modality.name == "text" else None
    with tempfile.TemporaryDirectory(prefix="groundwork-peers-") as name:
        clock = Clock(Path(name), options)
        folder = prepared(modality, data, options.work / "cache", tokenizer, MemoryContext(Path(name)))
        source = modality.open(folder)
        count = source.count(modality.views[spec.objective.views[0]])
        loader = Loader(
            source, modality, spec.objective.views, indices=np.arange(count), batch_size=options.batch, seed=0
        )
        learned: Json = {"params": 0}
        if row.ours.get("part") == "loader":
            read_only(loader, clock)
        else:
            learned = learn(spec, source, row.ours.get("vocabulary", 0), loader, clock)
    told = clock.tell()
    first, last = clock.marks[options.warmup], clock.marks[-1]
    counted = real(loader, range(options.warmup, options.steps), modality)
    return {
        "value": counted / (last[0] - first[0]), "cpu_value": counted / (last[1] - first[1]), "counted": counted,
        "wall_s": last[0] - first[0], "cpu_s": last[1] - first[1], **learned, "precision": spec.precision,
        "dropout": spec.backbone.dropout if spec.backbone else 0.0, **told, **_utilisation(learned, clock, spec),
    }  # fmt: skip


def _utilisation(learned: Json, clock: Clock, spec: PretrainSpec) -> Json:
    """MFU of the timed steps and the GPU's peak memory; nothing on a CPU."""
    if "flops" not in learned:
        return {}
    step = (clock.marks[-1][0] - clock.marks[clock.warmup][0]) / (clock.steps - clock.warmup)
    reached = learned["flops"] / step / peak_flops(clock.device, spec.precision or "fp32")
    return {"mfu": reached, "cuda_peak_mib": peak_memory(clock.device) / 2**20}


def prepare_twice(row: Row, options: argparse.Namespace) -> Json:
    """Seconds to the prepared folder of a first and of a second job, with a tokenizer of our own training."""
    modality = spec_of(row, options).modality
    assert modality is not None
    data, seconds = dataset(row, options.data, options.work), []
    with tempfile.TemporaryDirectory(prefix="groundwork-peers-") as name:
        for _ in range(2):
            started = time.perf_counter()
            modality.open(prepared(modality, data, Path(name), None, MemoryContext(Path(name))))
            seconds.append(time.perf_counter() - started)
    return {"value": seconds[0] / seconds[1], "first_s": seconds[0], "second_s": seconds[1]}


def main() -> int:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=sorted(BY_NAME))
    parser.add_argument("--data", type=Path, required=True, help="the kit's data folder")
    parser.add_argument("--work", type=Path, required=True, help="ingested and prepared data are kept here")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--warmup", type=int)
    parser.add_argument("--profile", action="store_true", help="show where the timed steps spend their time")
    parser.add_argument("--recipe", action="store_true", help="precision, dropout and GELU as our recipe has them here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()  # as the process of every job begins
    row = BY_NAME[options.row]
    for name in ("batch", "steps", "warmup"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(row, name))
    options.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = measure(row, options) if row.script else prepare_twice(row, options)
    result |= {"peak_rss_mib": peak_memory(torch.device("cpu")) / 2**20, "threads": torch.get_num_threads()}
    print(json.dumps(result | {"loadavg_1m": os.getloadavg()[0]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
