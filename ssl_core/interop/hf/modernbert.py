"""ModernBERT (Warner et al. 2024, https://arxiv.org/abs/2412.13663): rotary positions, gates, local layers.

It always gates its feed-forwards. One of ours without a gate is written with a gate that is 1 whatever comes in, which
changes no bit of the output; `_PLAIN` in the config says so, for whoever reads it here again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Headed, Public, Row, Shape, inexpressible, layered, unsupported, with_bias
from ssl_core.interop.hf._text import special_ids, text_shape
from ssl_core.interop.hf._trunk import LONGEST, OpenGate, dropout, rotary_base, same_again
from ssl_core.interop.transforms import SAME

_PLAIN = "gates_always_open"
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"


def read(public: Public) -> Shape:
    """ModernBERT's config, of transformers 4 or 5, as a pre-norm trunk with rotary positions."""
    width, depth = public.whole("hidden_size", 768), public.whole("num_hidden_layers", 22)
    flag = {True: True, False: False}
    biases = {public.one_of(name, flag, False) for name in ("attention_bias", "mlp_bias", "norm_bias")}
    if len(biases) > 1:
        raise unsupported("mlp_bias", public.config.get("mlp_bias"), "the same as attention_bias and norm_bias")
    every = _global_every(public, depth)
    window = 0 if every == 1 else public.whole("local_attention", 128) // 2 * 2
    base, local = _bases(public)
    backbone = EncoderSpec(
        name="custom", family="transformer", width=width, depth=depth, heads=public.whole("num_attention_heads", 12),
        mlp_ratio=public.whole("intermediate_size", 1152) / width, bias=biases.pop(), rotary_base=base,
        max_positions=min(LONGEST, public.whole("max_position_embeddings", 8192)), window=window,
        global_every=every if window else 0, local_rotary_base=local if window and local != base else 0.0,
        mlp="gelu" if public.one_of(_PLAIN, flag, False) else "geglu", norm_epsilon=public.number("norm_eps", 1e-5),
        dropout=dropout(public, "mlp_dropout"),
    )  # fmt: skip
    public.one_of("hidden_activation", {"gelu": None}, "gelu")
    return text_shape(public, backbone, public.whole("vocab_size", 50368))


def _global_every(public: Public, depth: int) -> int:
    """Every which layer is global; 0 = none."""
    kinds = public.config.get("layer_types")
    if kinds is None:
        return public.whole("global_attn_every_n_layers", 3)
    for every in range(depth + 1):
        if kinds == [_GLOBAL if every and at % every == 0 else _LOCAL for at in range(depth)]:
            return every
    raise unsupported("layer_types", kinds, "full_attention at the first layer and every n-th after it")


def _bases(public: Public) -> tuple[float, float]:
    """Rotary bases of global and of local layers."""
    both = public.config.get("rope_parameters")
    if both is None:
        local = public.config.get("local_rope_theta")
        base = public.number("global_rope_theta", 160_000.0)
        return base, base if local is None else public.number("local_rope_theta")
    if not isinstance(both, Mapping):
        raise unsupported("rope_parameters", both, "an entry for full_attention and one for sliding_attention")
    told = {name: rotary_base(both.get(name, {}), f"rope_parameters.{name}") for name in (_GLOBAL, _LOCAL)}
    return told[_GLOBAL], told[_LOCAL]


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where the trunk is a pre-norm encoder with rotary positions, its first layer without a norm."""
    spec = shape.backbone
    if spec.family != "transformer":
        return None
    if spec.mlp not in ("gelu", "geglu") or spec.positions != "rotary" or (spec.mlp == "gelu" and not spec.bias):
        return None
    every = spec.global_every if spec.window else 1
    kinds = [_GLOBAL if every and at % every == 0 else _LOCAL for at in range(spec.depth)]
    bases = {_GLOBAL: spec.rotary_base, _LOCAL: spec.local_rotary_base or spec.rotary_base}
    config = {
        "model_type": "modernbert",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": round(spec.mlp_ratio * spec.width),
        "max_position_embeddings": spec.max_positions,
        "vocab_size": shape.facts["vocab_size"],
        "hidden_activation": "gelu",
        "norm_eps": spec.norm_epsilon,
        "attention_bias": spec.bias,
        "mlp_bias": spec.bias,
        "norm_bias": spec.bias,
        "layer_types": kinds,
        "local_attention": spec.window or 128,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
        "attention_dropout": spec.dropout,
        "embedding_dropout": spec.dropout,
        "mlp_dropout": spec.dropout,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
        **special_ids(shape.facts),
    }
    return same_again(read, {**config, _PLAIN: True} if spec.mlp == "gelu" else config, shape)


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor; the first layer has no norm before its attention."""
    places = {
        "attention_norm": (("attn_norm",), SAME),
        "attention.qkv": (("attn.Wqkv",), SAME),
        "attention.out": (("attn.Wo",), SAME),
        "feed_forward_norm": (("mlp_norm",), SAME),
        "feed_forward.up": (("mlp.Wi",), SAME),
        "feed_forward.down": (("mlp.Wo",), SAME),
    }
    layer = with_bias(places, spec.bias)
    if spec.mlp == "gelu":
        hidden = round(spec.mlp_ratio * spec.width)
        for kind, value in (("weight", 0.0), ("bias", 1.0)):
            layer[f"feed_forward.up.{kind}"] = ((f"mlp.Wi.{kind}",), OpenGate(hidden, value))
    kinds = ("weight", "bias") if spec.bias else ("weight",)
    outside = {"embedding_norm": "embeddings.norm", "final_norm": "final_norm"}
    return [
        Row("token.weight", ("embeddings.tok_embeddings.weight",)),
        *(Row(f"{ours}.{kind}", (f"{theirs}.{kind}",)) for ours, theirs in outside.items() for kind in kinds),
        *(row for row in layered(spec.depth, layer, "layers") if not row.ours.startswith("layers.0.attention_norm.")),
    ]


def classify(shape: Shape, trunk: Mapping[str, Any], weight: Any, bias: Any) -> Headed:
    """Theirs reads the mean or the first token, through a layer and a norm."""
    name, spec = "ModernBertForSequenceClassification", shape.backbone
    if spec.pooling not in ("mean", "cls"):
        raise inexpressible(name, f"it pools by mean or cls, and this encoder by {spec.pooling}")
    return headed(name, shape, trunk, weight, bias)


def tag(shape: Shape, trunk: Mapping[str, Any], weight: Any, bias: Any) -> Headed:
    """Theirs reads every token through the same layer and norm."""
    return headed("ModernBertForTokenClassification", shape, trunk, weight, bias)


def headed(name: str, shape: Shape, trunk: Mapping[str, Any], weight: Any, bias: Any) -> Headed:
    """The trunk below a layer, a norm and a classifier."""
    import torch

    spec = shape.backbone
    first, last = classifiers.before_norm(weight, spec.norm_epsilon, name)
    head = {"head.dense.weight": first, "head.norm.weight": torch.ones(spec.width)}
    if spec.bias:
        head["head.norm.bias"] = torch.zeros(spec.width)
    head |= classifiers.layer("classifier", last, bias)
    pooling = spec.pooling if spec.pooling in ("mean", "cls") else "mean"
    told = {"classifier_pooling": pooling, "classifier_activation": "linear", "classifier_bias": False}
    return Headed(name, classifiers.under("model.", trunk) | head, told, classifiers.SCALED)


FAMILY = Family(
    model_types=("modernbert",),
    model_class="ModernBertModel",
    prefixes=("model.",),
    read=read,
    write=write,
    rows=rows,
    classify=classify,
    tag=tag,
)
