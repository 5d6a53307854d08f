"""An `evaluate` job on a pretrained model without a task: what it was pretrained for, measured on other data.

A language model tells its perplexity, an encoder of pairs how often pictures and texts find each other; every model
the means of its objective's own numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from ssl_core import distributed
from ssl_core.batch import Batch, Tokens
from ssl_core.context import RunContext
from ssl_core.data import rows
from ssl_core.data.cache import prepared
from ssl_core.data.loader import make_batch, read_slice
from ssl_core.data.restated import Restated
from ssl_core.durable import committed, write_json
from ssl_core.encoders import build_encoder
from ssl_core.encoders.dual import Dual
from ssl_core.errors import SpecError
from ssl_core.evaluation import retrieval
from ssl_core.evaluation_spec import EvaluateSpec
from ssl_core.export import BaseModel, open_base
from ssl_core.modalities.base import Source
from ssl_core.nets import Nets
from ssl_core.objectives import AnyObjective
from ssl_core.objectives.base import Objective
from ssl_core.rng import sample_seeds
from ssl_core.spec import RunOrder

_BATCH = 32


def run(order: RunOrder, spec: EvaluateSpec, context: RunContext) -> dict[str, Any]:
    """Score, tell, and leave `evaluation.json` as the artifact; returns the verdict.

    Raises:
        SpecError: `no_task`, the model has neither a task nor an objective.
        CheckpointError: `invalid_model`.
        DataError: the dataset's folder is damaged.
    """
    base = open_base(Path(order.model or ""))
    objective = objective_of(base)
    dataset = Path(order.datasets[spec.dataset])
    folder = prepared(base.modality, dataset, Path(order.cache), base.tokenizer, context)
    plain = base.modality.open(folder)
    source = Restated(plain, base.facts, plain.classes)
    encoder = build_encoder(base.backbone, {**base.facts, **{k: v for k, v in source.facts.items() if k == "side"}})
    nets = Nets(encoder) if objective is None else objective.build(encoder)
    if objective is None and not isinstance(encoder, Dual):
        text = "it has neither a task nor an objective to be measured by; fine-tune it first"
        raise SpecError("no_task", text, "model")
    nets.to(distributed.device())
    if objective is None:
        base.load_encoder(encoder)
    else:
        base.load_all(nets)
    nets.eval()
    context.emit("stage", stage="evaluating")
    metrics: dict[str, float] = {}
    worst: list[dict[str, Any]] = []
    with torch.no_grad(), distributed.alone():
        if objective is not None:
            metrics |= _means(objective, nets, source, base)
        if isinstance(encoder, Dual):
            found, worst = _retrieval(encoder, source, base, (dataset, spec.worst_rows))
            metrics |= found
    metrics = {f"test/{name}": value for name, value in sorted(metrics.items())}
    context.emit("metrics", step=0, values=metrics)
    with committed(context.workdir / "artifact") as made:
        told = {
            "model": spec.model, "dataset": spec.dataset, "rows": source.count("document"), "metrics": metrics,
            "classes": [], "worst": worst,
        }  # fmt: skip
        write_json(made / "evaluation.json", told)
    return {"status": "succeeded", "metrics": metrics, "summary": {}}


def objective_of(base: BaseModel) -> Objective | None:
    """What the model was pretrained with; None where that is not known, as of an imported one."""
    named = json.loads((base.folder / "config.json").read_text(encoding="utf-8")).get("objective")
    if named is None:
        return None
    objective: Objective = TypeAdapter(AnyObjective).validate_json(json.dumps(named))
    return objective


def _batches(source: Source, base: BaseModel, views: tuple[str, ...]) -> Iterator[Batch]:
    """All samples once, each with a seed that is its own: what is masked or cropped is the same at every evaluation."""
    unit = base.modality.views[views[0]]
    device = distributed.device()
    for start in range(0, source.count(unit), _BATCH):
        samples = np.arange(start, min(start + _BATCH, source.count(unit)))
        seeds = sample_seeds(0, 0, torch.from_numpy(samples))
        part = read_slice(source, unit, samples, seeds, from_start=set(views) == {"plain"})
        yield make_batch(base.modality, views, part, device)


def _means(objective: Objective, nets: Nets, source: Source, base: BaseModel) -> dict[str, float]:
    """Of everything that `loss` tells, over tokens or samples; a perplexity is that of the mean loss."""
    sums: dict[str, float] = {}
    whole = 0.0
    for batch in _batches(source, base, objective.views):
        size = _size(batch)
        if len(batch.seeds) < 2 and whole:
            continue  # one sample alone has no negatives, nor a spread
        for name, value in objective.loss(nets, batch).items():
            sums[name] = sums.get(name, 0.0) + float(value) * size
        whole += size
    means = {name: value / max(1.0, whole) for name, value in sums.items()}
    if "perplexity" in means:
        means["perplexity"] = math.exp(min(700.0, means["loss"]))
    return {name: value for name, value in means.items() if math.isfinite(value)}


def _size(batch: Batch) -> float:
    view = batch.views[0]
    return float((view.segments >= 0).sum()) if isinstance(view, Tokens) else float(len(batch.seeds))


def _retrieval(
    encoder: Dual, source: Source, base: BaseModel, at: tuple[Path, int]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Recalls, and the rows that are found last."""
    dataset, count = at
    images, texts = retrieval.pair_vectors(encoder, _batches(source, base, ("plain",)))
    of_images, of_texts = retrieval.ranks(images, texts), retrieval.ranks(texts, images)
    last = torch.argsort(of_images + of_texts, descending=True, stable=True)[:count].tolist()
    return retrieval.recalls(of_images, of_texts), _described(dataset, last, of_images, of_texts)


def _described(dataset: Path, last: list[int], of_images: Tensor, of_texts: Tensor) -> list[dict[str, Any]]:
    wanted, sources, start = set(last), dict[int, str](), 0
    for batch in rows.batches(dataset, ["source"], rows=8192):
        sources |= {start + at: name for at, name in enumerate(batch["source"]) if start + at in wanted}
        start += len(batch["source"])
    return [
        {"row": row, "source": sources[row], "image_to_text_rank": int(of_images[row]) + 1,
         "text_to_image_rank": int(of_texts[row]) + 1}
        for row in last
    ]  # fmt: skip
