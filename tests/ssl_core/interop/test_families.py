"""Every family: their weights in, the same outputs; out and in again, the same bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ssl_core.batch import Tokens
from ssl_core.encoders import Encoder, build_encoder
from ssl_core.interop import matching
from ssl_core.interop.base import Public, Shape
from ssl_core.interop.hf import BY_MODEL_TYPE, FAMILIES
from ssl_core.interop.tensors import Theirs, read_json

transformers = pytest.importorskip("transformers")

from tests.ssl_core.interop.families import TOYS, randomised  # noqa: E402

SPECIALS = {"pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4}


def saved(name: str, folder: Path) -> torch.nn.Module:
    """The toy of that family, written to `folder` by transformers."""
    torch.manual_seed(0)
    model = randomised(TOYS[name].make())
    model.save_pretrained(folder)  # type: ignore[operator]
    return model


def imported(folder: Path) -> tuple[Shape, Encoder, matching.Report]:
    public = Public(read_json(folder / "config.json"), SPECIALS)
    family = BY_MODEL_TYPE[public.config["model_type"]]
    shape = family.read(public)
    encoder = build_encoder(shape.backbone, dict(shape.facts)).eval()
    report = matching.load(family, encoder, Theirs(folder))
    return shape, encoder, report


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int32) if tensor.dtype == torch.float32 else tensor


def test_every_family_has_a_toy_here() -> None:
    assert set(TOYS) == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_tensor_of_the_encoder_has_its_one_row(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    _, encoder, _ = imported(tmp_path)
    rows = [row.ours for row in FAMILIES[name].rows(encoder.spec)]
    assert sorted(rows) == sorted(encoder.state_dict())


@pytest.mark.parametrize("name", FAMILIES)
def test_all_of_a_public_model_s_trunk_is_taken(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    _, _, report = imported(tmp_path)
    report.check(1.0)
    assert not report.missing and not report.unknown and not report.wrong


@pytest.mark.parametrize("name", [name for name in FAMILIES if not TOYS[name].half])
def test_an_export_imported_again_is_the_same_in_every_bit(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    shape, first, _ = imported(tmp_path)
    config = FAMILIES[name].write(shape)
    assert config is not None
    again = FAMILIES[name].read(Public(config, SPECIALS))
    assert again.backbone == shape.backbone
    assert again.facts == shape.facts
    save_file(matching.their_tensors(FAMILIES[name], first), tmp_path / "model.safetensors")
    second = build_encoder(again.backbone, dict(again.facts))
    matching.load(FAMILIES[name], second, Theirs(tmp_path)).check(1.0)
    for place, value in first.state_dict().items():
        assert torch.equal(bits(value), bits(second.state_dict()[place])), place


@pytest.mark.parametrize("name", [name for name in FAMILIES if TOYS[name].kind == "text"])
def test_an_imported_text_encoder_gives_the_public_model_s_outputs(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path)
    _, encoder, _ = imported(tmp_path)
    lengths = torch.tensor([16, 9, 5])
    slots = torch.arange(16)
    real = slots < lengths[:, None]
    pad = int(model.config.pad_token_id or 0)  # type: ignore[union-attr, arg-type]
    ids = torch.randint(5, TOYS[name].tokens - 1, (3, 16), generator=torch.Generator().manual_seed(1))
    ids = torch.where(real, ids, pad)
    trunk = model.base_model  # type: ignore[union-attr]
    trunk = trunk.encoder if TOYS[name].half else trunk  # type: ignore[union-attr]
    with torch.no_grad():
        expected = trunk(input_ids=ids, attention_mask=real.long()).last_hidden_state[real]  # type: ignore[operator]
        found = encoder.encode(Tokens(ids, torch.where(real, 0, -1).int(), slots * real))[real]
    assert (found - expected).abs().max() <= TOYS[name].atol * expected.abs().max().clamp(min=1)


def test_the_maps_import_without_torch() -> None:
    code = "import ssl_core.interop.hf, sys; assert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
