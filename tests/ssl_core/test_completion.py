"""Answers of language models without a task: continuations and filled masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ssl_core import inference
from ssl_core.completion import Completer
from ssl_core.errors import DataError
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.sampling import Sampling
from tests.model_folders import image_model, language_model, text_model
from tests.ssl_core import datasets

GREEDY = Sampling(max_tokens=6, temperature=0)


def completer(folder: Path) -> tuple[inference.LoadedModel, Completer]:
    model = inference.load(folder)
    assert model.completer is not None
    return model, model.completer


def test_a_fill_is_the_softmax_of_the_pretraining_head(tmp_path: Path) -> None:
    model, found = completer(language_model(tmp_path / "m", "mlm"))
    (prompt,) = found.to_fill(["bread [MASK] salt"])
    (answer,) = found.filled([prompt])
    view = model.modality.view("plain", model.read(["bread [MASK] salt"])[0].raw, torch.zeros(1, dtype=torch.int64))
    place = prompt.ids.index(model.nets.encoder.facts["mask_id"])
    head = model.nets.parts["vocabulary"]
    with torch.no_grad():
        hidden = head(model.nets.encoder.encode(view)[:, place])
        logits = F.linear(hidden, model.nets.encoder.get_parameter("token.weight"), head.get_parameter("bias"))
    expected = logits.softmax(1)[0].sort(descending=True).values[:5].tolist()
    assert [each["probability"] for each in answer["fills"][0]["candidates"]] == pytest.approx(expected, rel=1e-5)


def test_a_fill_does_not_depend_on_what_stands_beside_it(tmp_path: Path) -> None:
    _, found = completer(language_model(tmp_path / "m", "mlm"))
    texts = ["[MASK]", "bread oven salt flour [MASK] butter sugar", "rope [MASK] tide [MASK]"]
    together = found.filled(found.to_fill(texts))
    for text, answer in zip(texts, together, strict=True):
        (alone,) = found.filled(found.to_fill([text]))
        assert alone["text"] == answer["text"]


def test_a_mask_beyond_what_is_read_is_no_mask(tmp_path: Path) -> None:
    _, found = completer(language_model(tmp_path / "m", "mlm", max_length=8))
    with pytest.raises(DataError) as caught:
        found.to_fill(["[MASK]", "bread " * 30 + "[MASK]"])
    assert (caught.value.code, caught.value.param) == ("no_mask", "input[1]")
    assert "its first 8 tokens hold no [MASK]" in caught.value.message


def test_of_a_long_prompt_the_end_is_read(tmp_path: Path) -> None:
    _, found = completer(language_model(tmp_path / "m", "next_token", max_length=16))
    long, short = found.to_continue(["bread " * 40 + "rope tide", "rope tide"], GREEDY, 0)
    assert len(long.ids) == 16
    assert long.ids[-len(short.ids) + 1 :] == short.ids[1:]


def test_greedy_writing_is_the_argmax_step_by_step(tmp_path: Path) -> None:
    model, found = completer(language_model(tmp_path / "m", "next_token"))
    (prompt,) = found.to_continue(["bread oven salt"], GREEDY, 0)
    (answer,) = found.continued([prompt], GREEDY)
    ids = list(prompt.ids)
    end = model.nets.encoder.facts["sep_id"]
    wrote: list[int] = []
    while len(wrote) < 6 and (not wrote or wrote[-1] != end):
        view = model.modality.view("plain", model.read([ids])[0].raw, torch.zeros(1, dtype=torch.int64))
        with torch.no_grad():
            hidden = model.nets.encoder.encode(view)[0, -1]
        wrote.append(int((model.nets.encoder.get_parameter("token.weight") @ hidden).argmax()))
        ids.append(wrote[-1])
    assert answer["tokens"] == len(wrote)
    assert answer["finish_reason"] == ("stop" if wrote[-1] == end else "length")


@pytest.mark.parametrize("make", [text_model, image_model])
def test_a_model_without_a_language_objective_completes_nothing(tmp_path: Path, make: object) -> None:
    assert inference.load(make(tmp_path / "m")).completer is None  # type: ignore[operator]


def test_a_pretrained_protein_model_fills_a_chain(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    spec = {
        "type": "pretrain", "objective": {"name": "mlm"}, "dataset": "ds_toy", "modality": datasets.PROTEIN,
        "backbone": datasets.TINY_TEXT, "batch_size": 8, "budget": {"steps": 4},
    }  # fmt: skip
    datasets.order(run_dir, spec, {"ds_toy": datasets.protein_dataset(tmp_path / "data")})
    assert run(run_dir, FileContext(run_dir))["status"] == "succeeded"
    _, found = completer(run_dir / "artifact")
    (answer,) = found.filled(found.to_fill([{"protein": "AELK<mask>QR"}]))
    assert len(answer["text"].replace(" ", "")) >= 7
    assert len(answer["fills"]) == 1
