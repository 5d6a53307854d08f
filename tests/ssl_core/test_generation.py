"""Continuations: equal to the public library's, whatever stands in the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.encoders import build_encoder
from ssl_core.encoders.transformer import Transformer
from ssl_core.generation import continuations, distribution, openings, pick
from ssl_core.interop import hf
from ssl_core.sampling import Sampling
from tests.ssl_core import datasets
from tests.ssl_core.evaluation.test_samples import shown

VOCABULARY, CONTEXT, END = 97, 40, 3
FACTS = {"vocab_size": VOCABULARY, "max_length": CONTEXT, "pad_id": 0, "cls_id": 2, "sep_id": END, "mask_id": 4}
IDS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": END}
GPT = {"positions": "learned", "max_positions": CONTEXT, "attention": "causal", "embedding_norm": False,
       "mlp": "gelu_tanh"}  # fmt: skip
LLAMA = {"attention": "causal", "embedding_norm": False, "mlp": "swiglu", "norm_kind": "rms", "bias": False,
         "key_value_heads": 2, "norm_epsilon": 1e-6}  # fmt: skip
PROMPTS = [[7, 50, 23, 8, 61], [90], [12, 44, 13, 70, 33, 21, 9, 80, 66, 5, 17]]
GREEDY = Sampling(max_tokens=20, temperature=0)


def trunk(spec: dict[str, Any]) -> Transformer:
    torch.manual_seed(0)
    shape = {"name": "custom", "family": "transformer", "width": 32, "depth": 3, "heads": 4, "mlp_ratio": 1.5}
    encoder = build_encoder(EncoderSpec.model_validate({**shape, **spec}), FACTS).double().eval()
    assert isinstance(encoder, Transformer)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder


def public(name: str) -> tuple[Transformer, Any]:
    """A tiny model of ours and the public one with the same weights."""
    transformers = pytest.importorskip("transformers")
    if name == "gpt2":
        config = transformers.GPT2Config(**IDS, n_embd=32, n_layer=3, n_head=4, n_inner=48, n_positions=CONTEXT)
        ours, theirs = trunk(GPT), transformers.GPT2LMHeadModel(config)
    else:
        sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
        config = transformers.LlamaConfig(**IDS, **sizes, num_key_value_heads=2, tie_word_embeddings=True)
        ours, theirs = trunk(LLAMA), transformers.LlamaForCausalLM(config)
    theirs = theirs.double().eval()
    body = dict(theirs.base_model.named_parameters())
    rows = hf.FAMILIES[name].rows(ours.spec)
    ours.load_state_dict({row.ours: row.how.ours([body[key].detach() for key in row.theirs]) for row in rows})
    return ours, theirs


def seeds(count: int, first: int = 0) -> Tensor:
    return torch.arange(first, first + count)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_likeliest_continuation_is_the_public_library_s(name: str) -> None:
    ours, theirs = public(name)
    for prompt in PROMPTS:
        expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, use_cache=True)[0]
        assert continuations(ours, [prompt], GREEDY, seeds(1), END) == [expected[len(prompt) :].tolist()]


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(max_tokens=20, temperature=1.3, top_k=30, top_p=0.9)], ids=str)
def test_a_row_does_not_depend_on_its_neighbours(sampling: Sampling) -> None:
    encoder = trunk(LLAMA)
    together = continuations(encoder, PROMPTS, sampling, seeds(3), END)
    alone = [continuations(encoder, [prompt], sampling, seeds(1, row), END)[0] for row, prompt in enumerate(PROMPTS)]
    assert together == alone


@pytest.mark.parametrize("spec", [GPT, LLAMA, {**LLAMA, "window": 6}], ids=["gpt", "llama", "windows"])
def test_kept_keys_and_values_change_nothing(spec: dict[str, Any]) -> None:
    encoder = trunk(spec)
    written = continuations(encoder, [PROMPTS[0]], GREEDY, seeds(1))[0]
    ids = [*PROMPTS[0], *written]
    whole = torch.tensor([ids])
    tokens = Tokens(whole, torch.zeros_like(whole, dtype=torch.int32), torch.arange(len(ids))[None])
    with torch.no_grad():
        likeliest = (encoder.encode(tokens) @ encoder.token.weight.T).argmax(-1)[0].tolist()
    assert written == likeliest[len(PROMPTS[0]) - 1 : -1]


def test_a_text_ends_with_its_end_entry_and_not_before() -> None:
    encoder = trunk(GPT)
    free = continuations(encoder, [PROMPTS[2]], GREEDY, seeds(1))[0]
    stop = free[4]
    assert len(free) == 20
    assert continuations(encoder, [PROMPTS[2]], GREEDY, seeds(1), stop)[0] == free[: free.index(stop) + 1]


@pytest.mark.parametrize("spec", [GPT, {**LLAMA, "window": 6}], ids=["kept", "read anew"])
def test_a_continuation_outgrows_the_context_and_a_longer_prompt_loses_its_beginning(spec: dict[str, Any]) -> None:
    encoder = trunk(spec)
    long = Sampling(max_tokens=100, temperature=1.0)
    assert len(continuations(encoder, [PROMPTS[0]], long, seeds(1))[0]) == 100
    prompt = torch.arange(3 * CONTEXT).remainder(VOCABULARY).tolist()
    whole, end = (continuations(encoder, [ids], long, seeds(1)) for ids in (prompt, prompt[-CONTEXT:]))
    assert whole == end


@pytest.mark.parametrize("top_k, top_p, temperature", [(7, 1.0, 1.0), (0, 0.6, 0.7), (20, 0.5, 1.5), (1, 1.0, 2.0)])
def test_what_is_drawn_from_is_what_the_public_library_draws_from(top_k: int, top_p: float, temperature: float) -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    logits = 2 * torch.randn(5, VOCABULARY, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = process.TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        scores = process.TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = process.TopPLogitsWarper(top_p)(None, scores)
    found = distribution(logits, Sampling(temperature=temperature, top_k=top_k, top_p=top_p))
    torch.testing.assert_close(found, scores.softmax(-1), rtol=1e-9, atol=0)


def test_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    logits = torch.tensor([0.5, 0.2, 0.0, 0.3]).log().expand(20_000, 4)
    shares = pick(logits, Sampling(), seeds(20_000)).bincount(minlength=4) / 20_000
    assert shares[2] == 0 and (shares - torch.tensor([0.5, 0.2, 0.0, 0.3])).abs().max() < 0.015


def test_another_seed_writes_another_text_and_the_same_seed_the_same() -> None:
    encoder, sampling = trunk(LLAMA), Sampling(max_tokens=20, temperature=1.5)
    first, again, other = (continuations(encoder, [PROMPTS[0]], sampling, seeds(1, seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_what_cannot_be_continued_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        continuations(trunk(GPT), [[5], []], GREEDY, seeds(2))
    with pytest.raises(ValueError, match="causal"):
        continuations(trunk({}), [[5]], GREEDY, seeds(1))
    assert continuations(trunk(GPT), [], GREEDY, seeds(0)) == []


def test_the_longest_document_of_a_row_is_cut_in_half() -> None:
    tokens = Tokens(
        torch.tensor([[5, 6, 7, 8, 9, 10, 11, 0], [5, 0, 0, 0, 0, 0, 0, 0]]),
        torch.tensor([[0, 0, 1, 1, 1, 1, 1, -1], [0, -1, -1, -1, -1, -1, -1, -1]], dtype=torch.int32),
        torch.zeros(2, 8, dtype=torch.int64),
    )
    assert openings(tokens, 2) == [([7, 8], [9, 10])]


@pytest.mark.parametrize("modality", ["text", "protein"])
def test_a_finished_run_shows_prompts_with_the_true_and_the_written_continuation(tmp_path: Path, modality: str) -> None:
    setting, write = {"text": (datasets.TEXT, datasets.text_dataset),
                      "protein": (datasets.PROTEIN, datasets.protein_dataset)}[modality]  # fmt: skip
    backbone = {**datasets.TINY_TEXT, "attention": "causal", "embedding_norm": False}
    found = shown(tmp_path / "run", "next_token", setting, backbone, write(tmp_path / "data"))
    lines = found["continuations"].read_text().splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["prompt", "wrote", "true", ""]
    assert all(len(line) > len("prompt: ") for line in lines[:3])
