"""Packed documents, and the same layers as an ONNX graph: what the padded trunk computes, for every kind of trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.encoders import build_encoder
from ssl_core.encoders.transformer import Transformer
from ssl_core.errors import SpecError
from ssl_core.inference import load
from ssl_core.int8 import TRIED_ROWS, Fidelity, Int8Trunk
from ssl_core.packing import Packed, hidden_of, pack, pooled
from ssl_core.samples import batches_of
from tests.model_folders import image_model, picture, text_model, texts

LENGTHS = [7, 1, 30, 12, 29, 2]
KINDS: dict[str, dict[str, Any]] = {
    "ours": {},
    "bert": {"norm": "post", "positions": "learned"},
    "modernbert": {"mlp": "geglu", "bias": False, "window": 8, "global_every": 3, "local_rotary_base": 5000.0},
    "gpt2": {"attention": "causal", "positions": "learned", "embedding_norm": False, "mlp": "gelu_tanh"},
    "llama": {"attention": "causal", "norm_kind": "rms", "mlp": "swiglu", "key_value_heads": 2, "bias": False},
    "causal in windows": {"attention": "causal", "window": 6},
    "esm2": {"token_dropout": 0.12, "embedding_norm": False},
    "electra": {"embedding_width": 16, "norm": "post", "positions": "learned"},
    "clip": {"attention": "causal", "pooling": "last", "mlp": "quick_gelu", "positions": "learned"},
    "scaled": {"layer_scale": 0.1, "mlp": "relu", "qkv_bias": "no", "positions": "none", "first_norm": True},
    "grouped": {"key_value_heads": 1, "pooling": "cls"},
}


def trunk_of(kind: str) -> Transformer:
    spec = EncoderSpec(name="custom", family="transformer", width=64, depth=3, heads=4, **KINDS[kind])
    torch.manual_seed(1)
    made = build_encoder(spec, {"vocab_size": 300, "max_length": 32, "pad_id": 0, "mask_id": 4})
    assert isinstance(made, Transformer)
    for parameter in made.parameters():  # biases and norms of their own too
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made.eval().requires_grad_(False)


def rows_of(lengths: list[int]) -> Tokens:
    generator = torch.Generator().manual_seed(2)
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(4, 300, real.shape, generator=generator)  # 4 is the mask token
    positions = torch.arange(max(lengths)).expand(real.shape)
    return Tokens(ids * real, torch.where(real, 0, -1).int(), positions * real)


@pytest.fixture(params=list(KINDS))
def trunk(request: pytest.FixtureRequest) -> Transformer:
    return trunk_of(request.param)


def both(trunk: Transformer) -> tuple[Packed, torch.Tensor]:
    """The packed rows, and what the padded trunk makes of their real tokens."""
    rows = rows_of(LENGTHS)
    return pack(rows), trunk.encode(rows)[rows.segments >= 0]


@torch.inference_mode()
def test_packed_documents_give_what_padded_ones_give(trunk: Transformer) -> None:
    packed, padded = both(trunk)
    found = hidden_of(trunk, packed)
    assert found.shape == (sum(LENGTHS), 64)
    torch.testing.assert_close(found, padded, atol=2e-5, rtol=0)
    whole = pooled(found, packed.lengths, trunk.spec.pooling)
    torch.testing.assert_close(whole, trunk(rows_of(LENGTHS)), atol=2e-5, rtol=0)


@torch.inference_mode()
def test_the_graph_in_float32_gives_what_padded_documents_give(trunk: Transformer) -> None:
    packed, padded = both(trunk)
    torch.testing.assert_close(Int8Trunk(trunk, int8=False).hidden_of(packed), padded, atol=2e-5, rtol=0)


@torch.inference_mode()
def test_eight_bits_stay_near_float32(trunk: Transformer) -> None:
    packed, _ = both(trunk)
    exact = pooled(hidden_of(trunk, packed), packed.lengths, trunk.spec.pooling)
    coarse = pooled(Int8Trunk(trunk).hidden_of(packed), packed.lengths, trunk.spec.pooling)
    cosines = F.cosine_similarity(exact, coarse, dim=1)
    assert cosines.min() > 0.99 and not torch.equal(exact, coarse)


@pytest.mark.parametrize("kind", ["mean", "max", "cls", "last"])
def test_pooling_is_within_each_document(kind: str) -> None:
    hidden = torch.randn(10, 5)
    parts = [hidden[:3], hidden[3:4], hidden[4:]]
    ways = {"mean": lambda p: p.mean(0), "max": lambda p: p.amax(0), "cls": lambda p: p[0], "last": lambda p: p[-1]}
    expected = torch.stack([ways[kind](part) for part in parts])
    torch.testing.assert_close(pooled(hidden, torch.tensor([3, 1, 6]), kind), expected)


@pytest.mark.parametrize("segments", [[[0, 0, 1]], [[-1, 0, 0]], [[0, -1, 0]], [[-1, -1, -1]]])
def test_rows_of_another_kind_are_not_packed(segments: list[list[int]]) -> None:
    segment = torch.tensor(segments, dtype=torch.int32)
    with pytest.raises(ValueError, match="one document each"):
        pack(Tokens(torch.ones(1, 3, dtype=torch.int64), segment, torch.zeros(1, 3, dtype=torch.int64)))


def test_packed_batches_hold_every_sample_once_and_stay_under_the_budget(tmp_path: Path) -> None:
    samples = load(text_model(tmp_path / "model")).read(texts(300))
    batches = batches_of(samples, 400, packed=True)
    assert sorted(at for batch in batches for at in batch) == list(range(300))
    tokens = [sum(samples[at].cost for at in batch) for batch in batches]
    assert max(tokens) <= 400 and sum(tokens[:-1]) / len(tokens[:-1]) > 350
    assert len(batches) < len(batches_of(samples, 400))


def test_a_served_model_computes_in_eight_bits_and_says_how_near_it_is(tmp_path: Path) -> None:
    model, documents = load(text_model(tmp_path / "model")), texts(100)
    size = model.size_bytes
    exact, coarse = model.embed(documents), model.embed(documents, precision="int8")
    cosines = (exact * coarse).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(coarse, axis=1)
    assert not np.array_equal(exact, coarse) and cosines.min() > 0.99
    told = model.quantise().near("mean")
    assert TRIED_ROWS <= told.rows <= 100 and told.cosine == pytest.approx(cosines.min(), abs=1e-3)
    assert size < model.size_bytes < 2 * size
    np.testing.assert_array_equal(model.embed(documents), exact)
    other = model.quantise("max")
    assert other.near("max").rows == 0, "what is known of means says nothing of maxima"
    model.embed(documents[:5], pooling="max", precision="int8")
    assert other.near("max").rows == 5 and other.near("mean") == told


def test_a_model_that_eight_bits_are_too_coarse_for_is_refused(tmp_path: Path) -> None:
    model, documents = load(text_model(tmp_path / "model")), texts(8)
    weights = dict(model.nets.encoder.named_parameters())
    for name, weight in weights.items():  # one channel of every row drowns all others in the shared scale
        if name.endswith("feed_forward_norm.weight"):
            weight[0] = 1e5
        if name.endswith("feed_forward.up.weight"):
            weight[:, 0] = 0
        if name.endswith("feed_forward.down.weight"):
            weight *= 1000
    for _ in range(2):
        with pytest.raises(SpecError) as caught:
            model.embed(documents, precision="int8")
        assert (caught.value.code, caught.value.param) == ("precision_lost", "precision")
    assert model.embed(documents).shape == (8, 32)


def test_pictures_have_no_eight_bits(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(image_model(tmp_path / "model")).embed([picture()], precision="int8")
    assert (caught.value.code, caught.value.param) == ("precision_unsupported", "precision")


def test_without_onnxruntime_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(SpecError) as caught:
        load(text_model(tmp_path / "model")).embed(["bread"], precision="int8")
    assert (caught.value.code, caught.value.param) == ("precision_unavailable", "precision")


def test_the_least_cosine_is_kept() -> None:
    near = Fidelity().tried(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.1]]))
    far = near.tried(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.5, 1.0]]))
    assert (near.rows, far.rows) == (1, 3)
    assert far.cosine == pytest.approx(1 / 1.25**0.5) and far.cosine < near.cosine
    assert far.tried(torch.ones(1, 2), torch.ones(1, 2)).cosine == far.cosine
    near.check()
    with pytest.raises(SpecError, match=r"0\.8944"):
        far.check()


def test_bf16_stays_near_float32(tmp_path: Path) -> None:
    folder, documents = text_model(tmp_path / "model"), texts(20)
    exact, half = load(folder).embed(documents), load(folder, half=True).embed(documents)
    cosines = (exact * half).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(half, axis=1)
    assert half.dtype == np.float32 and not np.array_equal(exact, half) and cosines.min() > 0.999


def test_a_row_that_is_no_number_is_no_fidelity() -> None:
    exact = torch.ones(3, 4)
    coarse = exact.clone()
    coarse[1] = float("nan")
    found = Fidelity().tried(exact, coarse)
    assert found.cosine == -1.0 and found.rows == 3
    with pytest.raises(SpecError, match="ask for fp32"):
        found.check()
