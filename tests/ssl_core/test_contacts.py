"""Contacts of residues: the column, the map of pairs, precision, and a model that answers for chains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_core import inference
from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Batch, Tokens
from ssl_core.contact_nets import looked, symmetric
from ssl_core.data import residues
from ssl_core.encoders import build_encoder
from ssl_core.errors import DataError
from ssl_core.evaluation.contact_scores import hits, likeliest, precision
from ssl_core.modalities import MODALITIES
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.targets.contacts import Contacts as Column
from ssl_core.tasks.contacts import Contacts
from tests.ssl_core import datasets
from tests.ssl_core.uploads import take

PROTEIN = MODALITIES["protein"]
SMALL = {"channels": 8, "blocks": 2}


def read(contacts: Any, chain: bytes = b"ACDEFGHIKL") -> Any:
    return Column.read({"contacts": contacts}, {"protein": chain}, PROTEIN)


def test_pairs_are_sorted_and_count_once() -> None:
    assert read([[9, 2], [0, 7], [2, 9]]) == [0, 7, 2, 9]
    assert read("[[0, 7]]") == [0, 7]
    assert read([]) == []
    assert read(None) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([[0, 10]], "contact 1 is [0, 10]; allowed: two different ones of 0 to 9"),
        ([[0, 5], [-1, 3]], "contact 2 is [-1, 3]"),
        ([[4, 4]], "two different ones"),
        ([[1, 2, 3]], "contact 1 is [1, 2, 3]; needed: a list of pairs"),
        ([[1, 2.0]], "contact 1 is [1, 2.0]"),
        ([[1, True]], "contact 1 is [1, True]"),
        ([3], "contact 1 is 3"),
        ({"0": 1}, "the contacts are a dict"),
        ("[[0, 1]", "the contacts are not JSON"),
    ],
)
def test_what_are_no_pairs_of_the_chain_is_named(given: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read(given)
    assert caught.value.code == "invalid_contacts"
    assert words in caught.value.message


def test_an_upload_names_the_row_of_a_bad_contact_and_keeps_the_others(tmp_path: Path) -> None:
    rows = [{"sequence": "ACDEFGHIKLMN", "contacts": [[0, 9]]} for _ in range(5)]
    rows[3] = {"sequence": "ACDEFGHIKLMP", "contacts": [[0, 12]]}
    taken = take(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert taken.errors == [("a.jsonl", 4, "invalid_contacts")]
    assert [row["contacts"] for row in taken.rows] == [[0, 9]] * 4


def test_the_correction_is_the_formula_of_the_paper() -> None:
    maps = torch.rand(3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = symmetric(maps)
    for at in range(3):
        both = maps[at] + maps[at].T
        for i in range(7):
            for j in range(7):
                expected = both[i, j] - both[i].sum() * both[:, j].sum() / both.sum()
                assert found[at, i, j] == pytest.approx(float(expected))


def test_attention_maps_are_those_that_the_layers_use() -> None:
    """The output of a layer's attention is its maps times its values."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSpec.model_validate(datasets.TINY_TEXT), residues.facts(64)).eval()
    ids = torch.randint(4, 24, (2, 11))
    tokens = Tokens(ids, torch.zeros(2, 11, dtype=torch.int32), torch.arange(11).expand(2, 11))
    kept: list[torch.Tensor] = []
    attention = encoder.layers[0].attention  # type: ignore[union-attr,index]
    attention.register_forward_hook(lambda module, args, out: kept.extend((args[0], out)))  # type: ignore[union-attr]
    _, maps = looked(encoder, tokens)  # type: ignore[arg-type]
    read_, wrote = kept
    heads, width = attention.heads, attention.head_dim  # type: ignore[union-attr]
    values = attention.qkv(read_)[..., 2 * heads * width :].view(2, 11, heads, width).transpose(1, 2)  # type: ignore[operator,union-attr]
    mixed = (maps[:, :heads] @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.out(mixed), wrote)  # type: ignore[operator,union-attr]
    assert maps.shape == (2, len(encoder.layers) * heads, 11, 11)  # type: ignore[arg-type]


@pytest.mark.parametrize("separation", [1, 6])
def test_precision_is_what_counting_by_hand_gives(separation: int) -> None:
    generator = torch.Generator().manual_seed(1)
    length = 23
    logits = torch.randn(length, length, generator=generator)
    logits = logits + logits.T
    contacts = {(i, j) for i in range(length) for j in range(i + 1, length) if (i * j) % 5 == 1}
    pairs, _ = likeliest(logits, separation)
    right = hits(pairs, torch.tensor(sorted(contacts)), length)
    ranked = sorted(
        ((i, j) for i in range(length) for j in range(i + separation, length)), key=lambda pair: -float(logits[pair])
    )
    for share, judged in ((1, 23), (2, 11), (5, 4)):
        expected = np.mean([pair in contacts for pair in ranked[:judged]])
        assert precision(right, length, share) == pytest.approx(expected)


def test_a_chain_too_short_for_a_pair_is_not_judged() -> None:
    pairs, _ = likeliest(torch.zeros(5, 5), 6)
    assert len(pairs) == 0
    assert np.isnan(precision(hits(pairs, torch.zeros(0, 2).long(), 5), 5, 1))
    outputs = {"pairs": torch.full((1, 3, 5, 2), -1), "length": torch.tensor([5])}
    told = Contacts().metrics(outputs, {"contacts": torch.full((1, 0, 2), -1)})
    assert set(told.values()) == {0.0}


def made(tmp_path: Path, **task: Any) -> tuple[Path, dict[str, Any]]:
    run_dir = tmp_path / "run"
    spec = {
        "type": "finetune", "task": {"name": "contacts", **task}, "dataset": "ds_toy", "modality": datasets.PROTEIN,
        "backbone": datasets.TINY_TEXT, "batch_size": 8, "seed": 1, "budget": {"steps": 60},
    }  # fmt: skip
    datasets.order(run_dir, spec, {"ds_toy": datasets.protein_dataset(tmp_path / "data")})
    return run_dir, run(run_dir, FileContext(run_dir))


def test_sticky_residues_are_learned_and_answered_the_same_alone_as_with_others(tmp_path: Path) -> None:
    run_dir, verdict = made(tmp_path, **SMALL)
    assert verdict["status"] == "succeeded"
    # By chance some 0.1: see the chains' kinds.
    assert verdict["metrics"]["final/p_at_l5_sep6"] > 0.6
    model = inference.load(run_dir / "artifact")
    chains = ["AELKMQRVIYFTWAELKMQR", "GPSGPSGPSGPS"]
    together = model.predict(chains)
    assert [len(answer["contacts"]) for answer in together] == [20, 12]
    assert all(j - i >= 6 for answer in together for i, j, _ in answer["contacts"])
    for chain, answer in zip(chains, together, strict=True):
        alone = model.predict([chain])[0]["contacts"]
        assert [pair[:2] for pair in alone] == [pair[:2] for pair in answer["contacts"]]
        assert [pair[2] for pair in alone] == pytest.approx([pair[2] for pair in answer["contacts"]], abs=1e-5)
    assert (run_dir / "samples" / "contact_maps.png").stat().st_size > 500


def test_a_probe_solves_a_regression_on_attention_and_leaves_the_encoder_alone(tmp_path: Path) -> None:
    _, verdict = made(tmp_path, mode="linear_probe")
    assert verdict["status"] == "succeeded"
    assert 0 <= verdict["metrics"]["final_train/p_at_l_sep6"] <= 1


def test_a_longer_chain_is_trained_on_by_a_stretch_that_its_seed_chooses(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSpec.model_validate({**datasets.TINY_TEXT, "dropout": 0.0}), residues.facts(64))
    task = Contacts(crop=32, head_dropout=0, **SMALL)
    nets = task.build(encoder, [])
    ids = torch.randint(4, 24, (1, 60))
    tokens = Tokens(ids, torch.zeros(1, 60, dtype=torch.int32), torch.arange(60)[None])
    targets = {"contacts": torch.tensor([[[0, 50], [3, 11], [40, 55]]])}

    def loss(seed: int) -> float:
        return float(task.loss(nets, Batch((tokens,), torch.tensor([seed]), targets=targets))["loss"].detach())

    assert loss(1) == loss(1)
    assert len({round(loss(seed), 5) for seed in range(6)}) > 1
