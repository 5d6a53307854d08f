"""Next token, replaced token and sentence contrast against public models and formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ssl_core.backbones import BACKBONES, EncoderSpec
from ssl_core.batch import Batch, Tokens
from ssl_core.encoders import build_encoder
from ssl_core.encoders.transformer import Transformer
from ssl_core.errors import SpecError
from ssl_core.masks import all_masked, mask_tokens, seeded_dropout
from ssl_core.modalities.protein import ProteinModality
from ssl_core.nets import Nets
from ssl_core.objectives import OBJECTIVES
from ssl_core.objectives.next_token import NextToken
from ssl_core.objectives.replaced_token import ReplacedToken
from ssl_core.objectives.sentence_contrast import SentenceContrast
from ssl_core.replacement import detection_loss, generate_from, replaced
from ssl_core.rng import mix
from tests.ssl_core.test_parity_trunks import FAMILIES, close, pair, randomised, tensors_of, tokens_with_padding

transformers = pytest.importorskip("transformers")
FACTS = {"vocab_size": 90, "max_length": 16, "pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4}
SEEDS = torch.arange(6)


def encoder(**fields: Any) -> Transformer:
    torch.manual_seed(0)
    shape = {"name": "custom", "family": "transformer", "width": 32, "depth": 1, "heads": 2, **fields}
    made = build_encoder(EncoderSpec.model_validate(shape), FACTS)
    assert isinstance(made, Transformer)
    return made


def documents() -> Tokens:
    """Six rows of one document each, padded behind."""
    ids = torch.randint(5, 90, (6, 16), generator=torch.Generator().manual_seed(0))
    slots, lengths = torch.arange(16), torch.tensor([16, 5, 9, 16, 12, 7])
    real = slots < lengths[:, None]
    return Tokens(ids * real, torch.where(real, 0, -1).int(), slots * real)


def packed(rows: Tokens, first: int, second: int) -> Tokens:
    """One row of two documents, without padding."""
    parts = (first, second)
    real = [rows.segments[row] >= 0 for row in parts]
    segments = torch.cat([torch.full((int(kept.sum()),), at) for at, kept in enumerate(real)]).int()
    ids = torch.cat([rows.ids[row][kept] for row, kept in zip(parts, real, strict=True)])
    places = torch.cat([rows.positions[row][kept] for row, kept in zip(parts, real, strict=True)])
    return Tokens(ids[None], segments[None], places[None])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_next_token_equals_the_public_model_s_loss_and_gradients(name: str) -> None:
    ours, trunk = pair(name, torch.float64)
    kind = {"gpt2": transformers.GPT2LMHeadModel, "llama": transformers.LlamaForCausalLM}[name]
    trunk.config.tie_word_embeddings = True
    theirs = kind(trunk.config).double().eval()
    inner = theirs.transformer if name == "gpt2" else theirs.model
    inner.load_state_dict(trunk.state_dict())
    theirs.tie_weights()
    tokens = tokens_with_padding()
    real = tokens.segments >= 0
    labels = torch.where(real, tokens.ids, -100)
    expected = theirs(input_ids=tokens.ids, attention_mask=real.long(), labels=labels).loss
    loss = NextToken().loss(Nets(ours), Batch((tokens,), torch.arange(3)))["loss"]
    torch.autograd.backward([loss, expected])
    tolerance = 1e-5  # the public loss casts its logits to float32
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=tolerance)
    public = {key: p.grad for key, p in inner.named_parameters() if p.grad is not None}
    gradients = tensors_of(FAMILIES[name], public, ours)
    for place, parameter in ours.named_parameters():
        assert parameter.grad is not None and close(parameter.grad, gradients[place], tolerance), place


def test_packed_documents_have_the_loss_of_separate_ones() -> None:
    nets = Nets(encoder(attention="causal").double())
    rows = documents()
    row = packed(rows, 1, 2)
    together = NextToken().loss(nets, Batch((row,), SEEDS[:1]))["loss"]
    pair_of = Tokens(rows.ids[1:3], rows.segments[1:3], rows.positions[1:3])
    apart = NextToken().loss(nets, Batch((pair_of,), SEEDS[:2]))["loss"]
    assert float(together.detach()) == pytest.approx(float(apart.detach()), rel=1e-12)


def test_an_untrained_causal_model_guesses_and_tells_its_bits() -> None:
    values = NextToken().loss(Nets(encoder(attention="causal")), Batch((documents(),), SEEDS))
    loss = float(values["loss"].detach())
    assert loss == pytest.approx(math.log(90), rel=0.1)
    assert float(values["bits_per_token"]) == pytest.approx(loss / math.log(2), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "fields", "param"),
    [
        ("next_token", {}, "backbone.attention"),
        ("next_token", {"attention": "causal", "embedding_width": 16}, "backbone.embedding_width"),
        ("mlm", {"attention": "causal"}, "backbone.attention"),
        ("replaced_token", {"attention": "causal"}, "backbone.attention"),
    ],
)
def test_a_backbone_that_sees_too_much_or_too_little_is_refused(name: str, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(SpecError) as error:
        OBJECTIVES[name]().check(encoder(**fields).spec)
    assert (error.value.code, error.value.param) == ("backbone_mismatch", param)


@pytest.mark.parametrize("queue", ["cpu", "gpu"])
def test_the_recipe_of_next_token_passes_its_own_check(queue: str) -> None:
    modality = ProteinModality()
    NextToken().check(NextToken().backbone(modality, queue))
    assert BACKBONES["text-gpt-tiny"].attention == "causal"


def test_the_detection_loss_equals_electra_s() -> None:
    ours, trunk = pair("electra", torch.float64)
    theirs = randomised(transformers.ElectraForPreTraining(trunk.config)).double()
    theirs.electra.load_state_dict(trunk.state_dict())
    nets = ReplacedToken().build(ours).double()
    public = dict(theirs.named_parameters())
    names = {"dense": "discriminator_predictions.dense", "out": "discriminator_predictions.dense_prediction"}
    head = nets.parts["detection"]
    head.load_state_dict({n: public[f"{names[n.split('.')[0]]}.{n.split('.')[1]}"] for n in head.state_dict()})
    tokens = tokens_with_padding()
    real = tokens.segments >= 0
    changed = torch.rand(real.shape, generator=torch.Generator().manual_seed(4)) < 0.3
    loss = detection_loss(nets, ours.encode(tokens), changed, real).loss
    expected = theirs(input_ids=tokens.ids, attention_mask=real.long(), labels=changed.long()).loss
    torch.autograd.backward([loss, expected])
    # Logits are float32 in both the loss and its gradient.
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    table = public["electra.embeddings.word_embeddings.weight"].grad
    assert ours.token.weight.grad is not None and table is not None and close(ours.token.weight.grad, table, 1e-5)


def test_replaced_token_is_the_generator_s_loss_and_fifty_times_the_encoder_s() -> None:
    objective = ReplacedToken()
    values = objective.loss(objective.build(encoder()), Batch((documents(),), SEEDS))
    expected = float(values["generator_loss"]) + 50 * float(values["discriminator_loss"])
    assert float(values["loss"].detach()) == pytest.approx(expected, rel=1e-5)


def test_guesses_follow_the_generator_s_distribution_and_their_seeds() -> None:
    nets = ReplacedToken().build(encoder())
    one = documents()
    rows = Tokens(*(part[:1].expand(3000, -1) for part in (one.ids, one.segments, one.positions)))
    masked = all_masked(mask_tokens(rows, torch.zeros(3000, dtype=torch.long), FACTS, 0.15, False), 4)
    nets.parts["vocabulary"].get_parameter("bias").data.normal_(std=2.0)
    hidden = generate_from(nets, masked.tokens)
    place = int(masked.places[0, 0])
    drawn = replaced(nets, hidden, masked, torch.arange(3000)).ids
    head: Any = nets.parts["vocabulary"]
    weight = nets.encoder.get_parameter("token.weight")
    wanted = F.linear(head(hidden[0, place]), weight, head.bias).softmax(0).detach()
    shares = torch.bincount(drawn[:, place], minlength=90) / 3000
    assert (shares - wanted).abs().max() < 5 * (0.25 / 3000) ** 0.5
    assert torch.equal(drawn, replaced(nets, hidden, masked, torch.arange(3000)).ids)
    untouched = torch.ones(16, dtype=torch.bool)
    untouched[masked.places[0]] = False
    assert torch.equal(drawn[:, untouched], rows.ids[:, untouched])


def test_the_generator_has_no_token_table_of_its_own() -> None:
    nets = ReplacedToken().build(encoder())
    assert not [name for name, p in nets.parts.named_parameters() if p.shape[0] == 90 and p.ndim == 2]


def test_sentence_contrast_is_simcse_s_formula() -> None:
    objective, trunk, rows = SentenceContrast(temperature=0.1), encoder().double(), documents()
    values = objective.loss(objective.build(trunk), Batch((rows,), SEEDS))
    vectors = []
    for reading in range(2):
        dropped = seeded_dropout(trunk.token(rows.ids), mix(SEEDS, reading), 0.1)
        hidden, real = trunk.encode(rows, fill=dropped), (rows.segments >= 0).double()[:, :, None]
        vectors.append((hidden * real).sum(1) / real.sum(1))
    total = 0.0
    for i in range(6):
        scores = torch.stack([F.cosine_similarity(vectors[0][i], other, dim=0) for other in vectors[1]]) / 0.1
        total += float((torch.logsumexp(scores, 0) - scores[i]).detach())
    assert float(values["loss"].detach()) == pytest.approx(total / 6, rel=1e-6)


def test_seeded_dropout_drops_the_share_and_keeps_the_mean() -> None:
    x = torch.ones(50, 20, 40)
    dropped = seeded_dropout(x, torch.arange(50), 0.1)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=5 * (0.09 / x.numel()) ** 0.5)
    assert torch.equal(dropped.unique(), torch.tensor([0.0, 1 / 0.9]))
    assert torch.equal(dropped, seeded_dropout(x, torch.arange(50), 0.1))
    assert not torch.equal(dropped[0], dropped[1])
