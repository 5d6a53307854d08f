"""What a finished denoising run leaves for tasks that write: its decoder, its sentinels, and samples to look at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssl_core import inference
from ssl_core.encoders import build_encoder
from ssl_core.encoders.decoder import Decoder
from ssl_core.errors import SpecError
from ssl_core.export import open_base
from ssl_core.objectives.denoising import Denoising
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.spec import ModelFacts
from tests.ssl_core import datasets

SPEC: dict[str, Any] = {
    "type": "pretrain", "objective": {"name": "denoising", "noise": "span_corruption"}, "dataset": "ds_toy",
    "modality": datasets.TEXT, "backbone": datasets.TINY_TEXT, "batch_size": 8, "seed": 5, "budget": {"steps": 3},
}  # fmt: skip


def finished(workdir: Path, data: Path, spec: dict[str, Any], **fields: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    datasets.order(workdir, spec, {"ds_toy": data}, **fields)
    return run(workdir, FileContext(workdir))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return datasets.text_dataset(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("run") / "first"
    assert finished(folder, data, SPEC)["status"] == "succeeded"
    return folder


def tensors(workdir: Path) -> dict[str, Tensor]:
    return load_file(workdir / "artifact" / "model.safetensors")


def continued(workdir: Path, data: Path, to: Path, **objective: Any) -> dict[str, Any]:
    """A run of one step from the finished model, at a rate that moves nothing."""
    spec = {key: value for key, value in SPEC.items() if key not in ("modality", "backbone")}
    spec |= {"model": "mdl_b", "budget": {"steps": 1}, "optimizer": {"learning_rate": 1e-9}}
    spec["objective"] = {**SPEC["objective"], **objective}
    known = open_base(workdir / "artifact")
    base = ModelFacts(id="mdl_b", modality=known.modality, backbone=known.backbone)
    return finished(to, data, spec, base=base, model=str(workdir / "artifact"))


def test_the_model_says_how_deep_its_decoder_is_and_keeps_it(workdir: Path) -> None:
    assert json.loads((workdir / "artifact" / "config.json").read_text())["decoder_depth"] == 1
    base = open_base(workdir / "artifact")
    decoder = Decoder(base.backbone, base.decoder_depth)
    base.load_decoder(decoder)
    kept = tensors(workdir)
    assert all(torch.equal(value, kept[f"parts.decoder.{name}"]) for name, value in decoder.state_dict().items())


def test_it_serves_its_encoder_alone(workdir: Path) -> None:
    model = inference.load(workdir / "artifact")
    assert not model.nets.parts and model.embed(["bread oven salt"]).shape == (1, 32)


def test_further_pretraining_goes_on_with_decoder_and_sentinels(workdir: Path, data: Path, tmp_path: Path) -> None:
    assert continued(workdir, data, tmp_path / "second")["status"] == "succeeded"
    first, second = tensors(workdir), tensors(tmp_path / "second")
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_a_longer_table_of_sentinels_begins_with_the_shorter_one(workdir: Path, data: Path, tmp_path: Path) -> None:
    assert continued(workdir, data, tmp_path / "second", noise_probability=0.5)["status"] == "succeeded"
    first, second = (tensors(folder)["parts.sentinels.weight"] for folder in (workdir, tmp_path / "second"))
    assert len(second) > len(first) and torch.allclose(second[: len(first)], first, atol=1e-6)


def test_another_depth_than_the_base_model_s_is_refused(workdir: Path, data: Path, tmp_path: Path) -> None:
    error = continued(workdir, data, tmp_path / "second", decoder_depth=2)["error"]
    assert (error["class"], error["code"], error["param"]) == ("user", "decoder_mismatch", "objective.decoder_depth")


def test_a_model_without_a_decoder_gives_none_and_further_pretraining_starts_one(workdir: Path) -> None:
    base = replace(open_base(workdir / "artifact"), decoder_depth=0)
    torch.manual_seed(0)
    nets = Denoising().build(build_encoder(base.backbone, base.facts))
    before = {name: value.clone() for name, value in nets.parts.state_dict().items()}
    base.load_parts(nets)
    assert all(torch.equal(value, before[name]) for name, value in nets.parts.state_dict().items())
    with pytest.raises(SpecError) as error:
        base.load_decoder(Decoder(base.backbone))
    assert error.value.code == "no_decoder"


def test_it_shows_what_was_read_written_and_there(workdir: Path) -> None:
    lines = (workdir / "samples" / "fills.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["read", "wrote", "true", ""]
    assert len(lines) % 4 == 3
    assert any("<0>" in line for line in lines if line.startswith("read"))
