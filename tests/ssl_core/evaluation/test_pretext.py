"""Pretrained models measured by what they were pretrained for: perplexity of other texts, retrieval of other pairs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssl_core import inference
from ssl_core.context import MemoryContext
from ssl_core.evaluation.retrieval import ranks, recalls
from ssl_core.run import execute
from ssl_core.spec import JOB_SPEC, RunOrder
from tests.ssl_core import datasets
from tests.ssl_core.toys import TOYS


def pretrained(folder: Path, objective: str, modality: str, backbone: dict[str, Any]) -> Path:
    """The model folder of a short run."""
    spec = {
        "type": "pretrain", "dataset": "ds_pool", "objective": {"name": objective}, "backbone": backbone,
        "modality": TOYS[modality].modality, "budget": {"steps": 6}, "batch_size": 16,
    }  # fmt: skip
    run_dir = folder / "run"
    datasets.order(run_dir, spec, {"ds_pool": TOYS[modality].write(folder / "pool")})
    assert execute(order_of(run_dir), MemoryContext(run_dir))["status"] == "succeeded"
    return run_dir / "artifact"


def order_of(run_dir: Path) -> RunOrder:
    return RunOrder.model_validate_json((run_dir / "run.json").read_text())


def evaluated(folder: Path, model: Path, data: Path, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The verdict and what was written."""
    spec = {"type": "evaluate", "model": "mdl_a", "dataset": "ds_other", **more}
    workdir = folder / "evaluation"
    workdir.mkdir()
    order = RunOrder(
        spec=parsed(spec), datasets={"ds_other": str(data)}, cache=str(folder / "cache"), threads=1, model=str(model)
    )
    verdict = execute(order, MemoryContext(workdir))
    return verdict, json.loads((workdir / "artifact" / "evaluation.json").read_text())


def parsed(spec: dict[str, Any]) -> Any:
    return JOB_SPEC.validate_python(spec)


def test_a_language_model_is_measured_by_its_perplexity_over_all_tokens(tmp_path: Path) -> None:
    causal = {**datasets.TINY_TEXT, "attention": "causal", "embedding_norm": False}
    model = pretrained(tmp_path, "next_token", "text", causal)
    other = datasets.text_dataset(tmp_path / "other", rows=30, seed=9)
    verdict, told = evaluated(tmp_path, model, other)
    assert verdict["status"] == "succeeded"
    metrics = told["metrics"]
    assert metrics["test/perplexity"] == pytest.approx(math.exp(metrics["test/loss"]))
    # Rows are packed: a document that is cut at the end of one goes on in the next without its beginning.
    assert metrics["test/loss"] == pytest.approx(by_hand(model, other), rel=2e-3)
    assert told["rows"] == 30


def by_hand(model: Path, data: Path) -> float:
    """Mean negative log-likelihood of every token but each document's first; documents fit a row."""
    opened = inference.load(model)
    from ssl_core.data import rows

    total, count = 0.0, 0
    for text in next(rows.batches(data, ["text"]))["text"]:
        raw = opened.read([text])[0].raw
        view = opened.modality.view("plain", raw, torch.zeros(1, dtype=torch.int64))
        with torch.no_grad():
            hidden = opened.nets.encoder.encode(view)[0]
        logits = hidden[:-1] @ opened.nets.encoder.get_parameter("token.weight").T
        total += float(F.cross_entropy(logits, view.ids[0, 1:], reduction="sum"))  # type: ignore[union-attr]
        count += len(logits)
    return total / count


def test_an_encoder_of_pairs_is_measured_by_retrieval_both_ways(tmp_path: Path) -> None:
    model = pretrained(tmp_path, "clip", "image_text", datasets.TINY_PAIR)
    other = datasets.image_text_dataset(tmp_path / "other", rows=20, seed=4)
    verdict, told = evaluated(tmp_path, model, other, worst_rows=3)
    found = told["metrics"]
    opened = inference.load(model)
    items = TOYS["image_text"].items(other, 20)
    images = opened.embed([{"image": item["image"]} for item in items])
    texts = opened.embed([{"text": item["text"]} for item in items])
    cosines = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in texts] for a in images])
    own = np.diag(cosines)
    for depth in (1, 5, 10):
        expected = np.mean((cosines >= own[:, None] - 1e-7).sum(1) <= depth)
        assert found[f"test/image_to_text_r_at_{depth}"] == pytest.approx(expected, abs=0.051)
        expected = np.mean((cosines >= own[None] - 1e-7).sum(0) <= depth)
        assert found[f"test/text_to_image_r_at_{depth}"] == pytest.approx(expected, abs=0.051)
    assert len(told["worst"]) == 3
    sums = [row["image_to_text_rank"] + row["text_to_image_rank"] for row in told["worst"]]
    assert sums == sorted(sums, reverse=True)
    assert verdict["metrics"]["test/loss"] > 0


def test_ranks_count_equals_as_nearer() -> None:
    same = torch.ones(4, 3)
    assert ranks(same, same).tolist() == [3, 3, 3, 3]
    apart = torch.eye(4)
    assert ranks(apart, apart).tolist() == [0, 0, 0, 0]
    turned = ranks(apart, apart.roll(1, 0))
    assert recalls(turned, ranks(apart, apart))["text_to_image_r_at_1"] == 1.0
    assert recalls(turned, turned)["image_to_text_r_at_1"] == 0.0


@pytest.mark.parametrize("objective", ["simclr", "mae", "byol"])
def test_any_objective_tells_its_loss_on_other_pictures(tmp_path: Path, objective: str) -> None:
    backbone = TOYS["image"].backbone(("vit",) if objective == "mae" else ())
    model = pretrained(tmp_path, objective, "image", backbone)
    verdict, _ = evaluated(tmp_path, model, datasets.image_dataset(tmp_path / "other", rows=20, seed=3))
    assert math.isfinite(verdict["metrics"]["test/loss"])
