"""An imported model is a start like any other: pretraining goes on from it, it is fine-tuned, and goes out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from ssl_core.inference import load
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.spec import ModelFacts

transformers = pytest.importorskip("transformers")

from tests.ssl_core import datasets  # noqa: E402
from tests.ssl_core.interop.families import SQUARE, TOYS, randomised  # noqa: E402
from tests.ssl_core.interop.folders import bert_folder, exported, imported, zipped  # noqa: E402
from tests.ssl_core.tones import audio_dataset  # noqa: E402


def texts(folder: Path) -> Path:
    """Rows of words that the toy's vocabulary has."""
    rows = [" ".join(f"word{(7 * at + 3 * place) % 100}" for place in range(12)) for at in range(48)]
    labels = pa.array(["ab"[at % 2] for at in range(48)], pa.string())
    columns = {"text": rows, "label": labels, "source": ["toy.jsonl"] * 48}
    profile = {"modality": "text", "characters": sum(map(len, rows)), "width": 0, "height": 0, "channels": 0}
    return datasets.write_dataset(folder, columns, profile)


# What it reads, the public model, the objective, and the class that the fine-tuned model is exported as.
KINDS: dict[str, tuple[str, Callable[..., Path], str, str]] = {
    "text": ("bert", texts, "mlm", ""),
    "image": ("vit", datasets.image_dataset, "simclr", "ViTForImageClassification"),
    "audio": ("wav2vec2", audio_dataset, "wav2vec2", "Wav2Vec2ForSequenceClassification"),
}
SMALL = {"budget": {"steps": 2}, "batch_size": 8}


def public(name: str, folder: Path) -> Path:
    """The zip of a small public model."""
    if name == "bert":
        bert_folder(folder)
    else:
        torch.manual_seed(0)
        small = transformers.ViTConfig(**{**SQUARE, "image_size": 8, "patch_size": 4})
        make = TOYS[name].make if name != "vit" else lambda: transformers.ViTForImageClassification(small)
        randomised(make()).save_pretrained(folder)  # type: ignore[operator]
    return zipped(folder, folder.parent / "public.zip")


def trained(workdir: Path, spec: dict[str, Any], rows: Path, base: Path) -> Path:
    """The model of a job that starts from `base`."""
    config = json.loads((base / "config.json").read_text())
    known = {name: config[name] for name in ("modality", "backbone", "objective")}
    facts = ModelFacts.model_validate_json(json.dumps({"id": "mdl_a", **known}))
    whole = {**spec, **SMALL, "dataset": "ds_toy", "model": "mdl_a"}
    datasets.order(workdir, whole, {"ds_toy": rows}, base=facts, model=str(base))
    verdict = run(workdir, FileContext(workdir))
    assert verdict["status"] == "succeeded", verdict
    return workdir / "artifact"


@pytest.mark.parametrize("kind", KINDS)
def test_an_imported_model_is_pretrained_on_fine_tuned_and_exported(kind: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    name, write, objective, model_class = KINDS[kind]
    rows = write(tmp_path / "rows")
    imported(public(name, tmp_path / "public"), tmp_path / "import")
    start = tmp_path / "import" / "artifact"
    spec = {"type": "pretrain", "objective": {"name": objective}, "validation_fraction": 0.0}  # the last step is kept
    further = trained(tmp_path / "pretrain", spec, rows, start)
    before, after = load(start).nets.encoder.state_dict(), load(further).nets.encoder.state_dict()
    moved = [(after[place] - value).abs().max() for place, value in before.items() if value.is_floating_point()]
    assert 0 < max(moved) < 0.1  # two steps from where the public model was
    task = {"type": "finetune", "task": {"name": "classification"}}
    tuned = trained(tmp_path / "finetune", task, rows, further)
    assert (
        json.loads((tuned / "config.json").read_text())["backbone"]["family"]
        == load(start).config["backbone"]["family"]
    )
    folder, verdict = exported(tuned, tmp_path / "export", "hf" if model_class else "onnx")
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4
    if model_class:
        assert json.loads((folder / "config.json").read_text())["architectures"] == [model_class]
