"""CLIP's and SigLIP's losses: equal to the public ones, and a caption that comes twice is no negative of itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssl_core import pair_losses
from ssl_core.batch import Tokens

transformers = pytest.importorskip("transformers")

PAIRS, SIZE, LENGTH = 6, 16, 8
TEXT = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "vocab_size": 50, "max_position_embeddings": LENGTH}  # fmt: skip
VISION = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
          "image_size": SIZE, "patch_size": 8}  # fmt: skip
NAMES = torch.arange(PAIRS)


def inputs() -> dict[str, Tensor]:
    torch.manual_seed(1)
    pixels = torch.randn(PAIRS, 3, SIZE, SIZE, dtype=torch.float64)
    return {"pixel_values": pixels, "input_ids": torch.randint(3, 50, (PAIRS, LENGTH))}


def test_clip_s_loss_equals_the_public_one_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)
    ).double()
    vectors: dict[str, Tensor] = {}
    for side, part in (("image", model.visual_projection), ("text", model.text_projection)):
        part.register_forward_hook(lambda module, given, made, side=side: keep(vectors, side, made))
    expected = model(**inputs(), return_loss=True).loss
    expected.backward()
    images, texts = (vectors[side].detach().requires_grad_() for side in ("image", "text"))
    logarithm = model.logit_scale.detach().clone().requires_grad_()
    loss, _, _ = pair_losses.clip(images, texts, logarithm.exp(), NAMES)
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-10, atol=0)
    compare([(images, vectors["image"]), (texts, vectors["text"]), (logarithm, model.logit_scale)])


def test_siglip_s_loss_equals_the_public_one_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    text = {**TEXT, "projection_size": 24, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=VISION)).double()
    with torch.no_grad():
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-3.0)
    vectors: dict[str, Tensor] = {}
    for side, part in (("image", model.vision_model), ("text", model.text_model)):
        part.register_forward_hook(lambda module, given, made, side=side: keep(vectors, side, made.pooler_output))
    expected = model(**inputs(), return_loss=True).loss
    expected.backward()
    images, texts = (vectors[side].detach().requires_grad_() for side in ("image", "text"))
    logarithm, bias = (value.detach().clone().requires_grad_() for value in (model.logit_scale, model.logit_bias))
    loss, _, _ = pair_losses.siglip(images, texts, logarithm.exp(), bias, NAMES)
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-10, atol=0)
    compare([
        (images, vectors["image"]), (texts, vectors["text"]), (logarithm, model.logit_scale), (bias, model.logit_bias)
    ])  # fmt: skip


def keep(vectors: dict[str, Tensor], side: str, made: Tensor) -> None:
    made.retain_grad()
    vectors[side] = made


def compare(pairs: list[tuple[Tensor, Tensor]]) -> None:
    for ours, theirs in pairs:
        assert ours.grad is not None and theirs.grad is not None and theirs.grad.abs().max() > 0
        torch.testing.assert_close(ours.grad.reshape(-1), theirs.grad.reshape(-1), rtol=1e-8, atol=1e-12)


def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images, texts = (torch.randn(PAIRS, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    texts[3] = texts[0]
    return images, texts


def test_a_caption_that_stands_at_two_pictures_is_no_negative_of_either_in_clip() -> None:
    images, texts = vectors()
    logits = 7 * torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T
    terms = []
    for scores in (logits, logits.T):
        for row in range(PAIRS):
            others = [at for at in range(PAIRS) if {at, row} != {0, 3}]
            terms.append(scores[row, others].logsumexp(0) - scores[row, row])
    loss, _, _ = pair_losses.clip(images, texts, torch.tensor(7.0), torch.tensor([0, 1, 2, 0, 4, 5]))
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_a_caption_that_stands_at_two_pictures_is_no_negative_of_either_in_siglip() -> None:
    images, texts = vectors()
    logits = 7 * torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T - 2
    wanted = 0.0
    for row in range(PAIRS):
        for column in range(PAIRS):
            if {row, column} != {0, 3}:
                wanted -= float(torch.nn.functional.logsigmoid(logits[row, column] * (1 if row == column else -1)))
    names = torch.tensor([0, 1, 2, 0, 4, 5])
    loss, _, _ = pair_losses.siglip(images, texts, torch.tensor(7.0), torch.tensor(-2.0), names)
    assert float(loss) == pytest.approx(wanted / PAIRS)


def test_the_shares_count_what_is_found_each_way() -> None:
    images = torch.eye(3)
    texts = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
    _, forth, back = pair_losses.clip(images, texts, torch.tensor(1.0), torch.arange(3))
    assert (float(forth), float(back)) == (1.0, pytest.approx(2 / 3))


def rows(*ids: list[int], width: int) -> Tokens:
    padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    lengths = torch.tensor([len(row) for row in ids])
    real = torch.arange(width) < lengths[:, None]
    return Tokens(padded, torch.where(real, 0, -1).int(), torch.arange(width) * real)


def test_equal_texts_have_equal_fingerprints_whatever_their_padding_and_others_do_not() -> None:
    short, long = rows([7, 8], [8, 7], [7], width=2), rows([7, 8], [7, 8, 0], [5] * 6, width=6)
    found = [int(value) for tokens in (short, long) for value in pair_losses.fingerprints(tokens)]
    assert found[0] == found[3] and len(set(found)) == 5


def test_no_two_of_many_random_texts_have_one_fingerprint() -> None:
    ids = torch.randint(5, 5000, (20_000, 12), generator=torch.Generator().manual_seed(0))
    distinct = len(ids.unique(dim=0))
    tokens = Tokens(ids, torch.zeros_like(ids).int(), torch.arange(12).expand_as(ids))
    assert len(pair_losses.fingerprints(tokens).unique()) == distinct
