"""The trunk in the shapes of the public families, with the same weights: outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.encoders import Encoder, build_encoder
from ssl_core.encoders.transformer import Transformer
from ssl_core.heads import masked_language_loss
from ssl_core.interop import hf
from ssl_core.masks import MaskedTokens
from ssl_core.objectives.mlm import MaskedLanguageModelling

transformers = pytest.importorskip("transformers")

VOCABULARY, LENGTH, MASK = 120, 24, 4
FACTS = {"vocab_size": VOCABULARY, "max_length": LENGTH, "pad_id": 0, "cls_id": 2, "sep_id": 3, "mask_id": MASK}
IDS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}
# Ours -> theirs where interchange has no map; several stand below each other, [2:] leaves two rows out.
CLIP_LAYER = {
    "attention_norm": "layer_norm1",
    "attention.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "attention.out": "self_attn.out_proj",
    "feed_forward_norm": "layer_norm2",
    "feed_forward.up": "mlp.fc1",
    "feed_forward.down": "mlp.fc2",
}


@dataclass(frozen=True)
class Family:
    """A public model, its shape in our words, and the file of `ssl_core/interop/hf` that says where our tensors stand.

    `outside`, `layer` and `layers` take the map's place where there is none yet.
    """

    theirs: Callable[[], nn.Module]
    spec: dict[str, Any]
    map: str = ""
    outside: dict[str, str] = field(default_factory=dict)
    layer: dict[str, str] = field(default_factory=dict)
    layers: str = ""


TYPES = "embeddings.token_type_embeddings.weight"
POST = {"norm": "post", "positions": "learned", "max_positions": 32, "norm_epsilon": 1e-12}
FAMILIES = {
    "roberta": Family(
        lambda: transformers.RobertaModel(
            transformers.RobertaConfig(
                **{**IDS, **SHAPE, **QUIET, "pad_token_id": 1}, type_vocab_size=1, max_position_embeddings=34
            ),
            add_pooling_layer=False,
        ),
        POST,
        "roberta",
    ),
    "electra": Family(
        lambda: transformers.ElectraModel(
            transformers.ElectraConfig(**IDS, **SHAPE, **QUIET, embedding_size=16, max_position_embeddings=32)
        ),
        {**POST, "embedding_width": 16},
        "electra",
    ),
    "modernbert": Family(
        lambda: transformers.ModernBertModel(
            transformers.ModernBertConfig(
                **IDS, **SHAPE, cls_token_id=2, sep_token_id=3, local_attention=8, global_attn_every_n_layers=3
            )
        ),
        {
            "mlp": "geglu", "bias": False, "rotary_base": 160_000.0, "window": 8, "global_every": 3,
            "local_rotary_base": 10_000.0,
        },
        "modernbert",
    ),
    "gpt2": Family(
        lambda: transformers.GPT2Model(
            transformers.GPT2Config(
                **IDS, n_embd=32, n_layer=4, n_head=4, n_inner=48, n_positions=32, resid_pdrop=0.0, embd_pdrop=0.0,
                attn_pdrop=0.0,
            )
        ),
        {
            "positions": "learned", "max_positions": 32, "attention": "causal", "embedding_norm": False,
            "mlp": "gelu_tanh",
        },
        "gpt2",
    ),
    "llama": Family(
        lambda: transformers.LlamaModel(transformers.LlamaConfig(**IDS, **SHAPE, num_key_value_heads=2)),
        {
            "attention": "causal", "embedding_norm": False, "mlp": "swiglu", "norm_kind": "rms", "bias": False,
            "key_value_heads": 2, "norm_epsilon": 1e-6,
        },
        "llama",
    ),
    "esm2": Family(
        lambda: transformers.EsmModel(
            transformers.EsmConfig(
                **IDS, **SHAPE, **QUIET, mask_token_id=MASK, position_embedding_type="rotary", token_dropout=True,
                emb_layer_norm_before=False,
            ),
            add_pooling_layer=False,
        ),
        {"embedding_norm": False, "token_dropout": 0.12, "norm_epsilon": 1e-12},
        "esm",
    ),
    "clip": Family(
        lambda: transformers.CLIPTextModel(
            transformers.CLIPTextConfig(**IDS, **SHAPE, max_position_embeddings=32, attention_dropout=0.0)
        ),
        {
            "positions": "learned", "max_positions": 32, "attention": "causal", "embedding_norm": False,
            "mlp": "quick_gelu", "pooling": "last",
        },
        outside={
            "token": "embeddings.token_embedding", "position": "embeddings.position_embedding",
            "final_norm": "final_layer_norm",
        },
        layer=CLIP_LAYER,
        layers="encoder.layers",
    ),
}  # fmt: skip


def randomised(module: Any) -> Any:
    """Weights large and norms and biases away from 1 and 0, or a swap of two of them would not show."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * (0.5 if "embed" in name else 0.15))
    return module.eval()


def tokens_with_padding() -> Tokens:
    """Three rows, two of them padded, some mask tokens among them, each row's last token the end of text."""
    lengths = torch.tensor([LENGTH, 17, 5])
    slots = torch.arange(LENGTH)
    real = slots < lengths[:, None]
    ids = torch.randint(5, VOCABULARY, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    ids[:, 2], ids[0, 9] = MASK, MASK
    ids = ids.scatter(1, lengths[:, None] - 1, 3) * real
    return Tokens(ids, torch.where(real, 0, -1).int(), slots * real)


def source(of: dict[str, Tensor], theirs: str, kind: str, inside: str) -> Tensor:
    """Our tensor, out of those of theirs that the table names."""
    parts = []
    for name in theirs.split():
        part = of[f"{inside}{name.removesuffix('[2:]')}.{kind}"]
        parts.append(part[2:] if name.endswith("[2:]") else part)
    return torch.cat(parts)


def tensors_of(family: Family, theirs: dict[str, Tensor], ours: Encoder) -> dict[str, Tensor]:
    """Every parameter of ours by name, taken from theirs; a parameter without a source is an error."""
    if family.map:
        rows = hf.FAMILIES[family.map].rows(ours.spec)
        return {row.ours: row.how.ours([theirs[name] for name in row.theirs]) for row in rows}
    found = {}
    for name, _ in ours.named_parameters():
        place, kind = name.rsplit(".", 1)
        if place.startswith("layers."):
            _, at, inner = place.split(".", 2)
            found[name] = source(theirs, family.layer[inner], kind, f"{family.layers}.{at}.")
        else:
            found[name] = source(theirs, family.outside[place], kind, "")
    return found


def pair(name: str, dtype: torch.dtype) -> tuple[Transformer, nn.Module]:
    torch.manual_seed(0)
    family = FAMILIES[name]
    theirs = randomised(family.theirs()).to(dtype)
    shape = {"name": "custom", "family": "transformer", "width": 32, "depth": 4, "heads": 4, "mlp_ratio": 1.5}
    ours = build_encoder(EncoderSpec.model_validate({**shape, **family.spec}), FACTS).to(dtype).eval()
    public = {key: value.detach() for key, value in theirs.named_parameters()}
    ours.load_state_dict(tensors_of(family, public, ours))
    assert isinstance(ours, Transformer)
    return ours, theirs


def close(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_trunk_equals_the_public_family_in_output_and_gradient(name: str, dtype: torch.dtype) -> None:
    ours, theirs = pair(name, dtype)
    # Public rotary tables and RMS norms are float32 whatever the dtype of the weights.
    rounded = dtype == torch.float32 or name in ("modernbert", "llama", "esm2")
    tolerance = 1e-5 if rounded else 1e-12
    tokens = tokens_with_padding()
    real = tokens.segments >= 0
    # RoBERTa counts positions by its padding id; the others by slot.
    ids = torch.where(real, tokens.ids, 1) if name == "roberta" else tokens.ids
    expected = theirs(input_ids=ids, attention_mask=real.long()).last_hidden_state[real]
    found = ours.encode(tokens)[real]
    assert close(found, expected, tolerance)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    torch.autograd.backward([(expected * direction).sum(), (found * direction).sum()])
    public = {key: p.grad for key, p in theirs.named_parameters() if p.grad is not None}
    if TYPES in public:
        # The map adds type 0 to the positions; the positions' gradient stands alone.
        public[TYPES] = torch.zeros_like(public[TYPES])
    gradients = tensors_of(FAMILIES[name], public, ours)
    for place, parameter in ours.named_parameters():
        assert parameter.grad is not None and close(parameter.grad, gradients[place], tolerance), place


def test_the_last_token_stands_for_a_caption_as_in_clip() -> None:
    ours, theirs = pair("clip", torch.float64)
    tokens = tokens_with_padding()
    expected = theirs(input_ids=tokens.ids, attention_mask=(tokens.segments >= 0).long()).pooler_output
    assert close(ours(tokens), expected, 1e-12)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_causal_trunk_gives_the_public_model_s_tokens_one_at_a_time(name: str) -> None:
    ours, theirs = pair(name, torch.float64)
    ids = tokens_with_padding().ids[:1]
    expected = theirs(input_ids=ids).last_hidden_state
    pasts = ours.pasts()
    steps = [ours.step(ids[:, :7], pasts), *(ours.step(ids[:, at : at + 1], pasts) for at in range(7, 21))]
    steps.append(ours.step(ids[:, 21:], pasts))
    assert close(torch.cat(steps, 1), expected, 1e-5 if name == "llama" else 1e-12)


def test_the_masked_language_loss_of_a_narrow_table_equals_electra_s_generator() -> None:
    ours, trunk = pair("electra", torch.float64)
    theirs = randomised(transformers.ElectraForMaskedLM(trunk.config)).double()
    theirs.electra.load_state_dict(trunk.state_dict())
    nets = MaskedLanguageModelling().build(ours).double()
    head = nets.parts["vocabulary"]
    names = {"dense": "generator_predictions.dense", "norm": "generator_predictions.LayerNorm"}
    public = dict(theirs.named_parameters())
    weights = {name: public[f"{names[name.split('.')[0]]}.{name.split('.')[1]}"] for name in head.state_dict()
               if name != "bias"}  # fmt: skip
    head.load_state_dict({**weights, "bias": public["generator_lm_head.bias"]})
    tokens, places = tokens_with_padding(), torch.tensor([[1, 7, 20], [0, 16, 3], [4, 2, 1]])
    targets = torch.randint(5, VOCABULARY, (3, 3), generator=torch.Generator().manual_seed(3))
    masked = MaskedTokens(tokens, places, targets, torch.ones(3, 3))
    loss, _ = masked_language_loss(nets, ours.encode(tokens), masked)
    labels = torch.full_like(tokens.ids, -100).scatter(1, places, targets)
    expected = theirs(input_ids=tokens.ids, attention_mask=(tokens.segments >= 0).long(), labels=labels).loss
    torch.autograd.backward([loss, expected])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-12)
    table = public["electra.embeddings.word_embeddings.weight"].grad
    assert ours.token.weight.grad is not None and table is not None
    assert close(ours.token.weight.grad, table, 1e-12)
