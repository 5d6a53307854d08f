"""Llama (Touvron et al. 2023, https://arxiv.org/abs/2307.09288): causal, rotary, RMS norms, grouped queries, SwiGLU."""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Ignored, Public, Row, Shape, layered, unsupported, with_bias
from ssl_core.interop.hf._text import special_ids, text_shape
from ssl_core.interop.hf._trunk import LONGEST, dropout, rotary_base, same_again
from ssl_core.interop.transforms import SAME, Stacked


def read(public: Public) -> Shape:
    """Llama's config as a causal pre-norm trunk."""
    width, heads = public.whole("hidden_size", 4096), public.whole("num_attention_heads", 32)
    shared = heads if public.config.get("num_key_value_heads") is None else public.whole("num_key_value_heads")
    if public.config.get("head_dim") not in (None, width // max(1, heads)):
        raise unsupported("head_dim", public.config["head_dim"], f"hidden_size / num_attention_heads, {width}/{heads}")
    biases = {public.one_of(name, {True: True, False: False}, False) for name in ("attention_bias", "mlp_bias")}
    if len(biases) > 1:
        raise unsupported("mlp_bias", public.config.get("mlp_bias"), "the same as attention_bias")
    backbone = EncoderSpec(
        name="custom", family="transformer", width=width, depth=public.whole("num_hidden_layers", 32), heads=heads,
        key_value_heads=0 if shared == heads else shared, attention="causal", embedding_norm=False, norm_kind="rms",
        mlp_ratio=public.whole("intermediate_size", 11008) / width, bias=biases.pop(), rotary_base=_base(public),
        max_positions=min(LONGEST, public.whole("max_position_embeddings", 2048)),
        mlp=public.one_of("hidden_act", {"silu": "swiglu", "gelu": "geglu"}, "silu"),
        norm_epsilon=public.number("rms_norm_eps", 1e-6), dropout=dropout(public, "attention_dropout"),
    )  # fmt: skip
    return text_shape(public, backbone, public.whole("vocab_size", 32000))


def _base(public: Public) -> float:
    if public.config.get("rope_scaling") is not None:
        raise unsupported("rope_scaling", public.config["rope_scaling"], "null")
    if public.config.get("rope_parameters") is not None:
        return rotary_base(public.config["rope_parameters"], "rope_parameters")
    return public.number("rope_theta", 10_000.0)


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where the trunk is causal with rotary positions, RMS norms and a gate."""
    spec = shape.backbone
    if spec.family != "transformer":
        return None
    if not spec.mlp.endswith("glu") or spec.positions != "rotary":
        return None
    config = {
        "model_type": "llama",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.key_value_heads or spec.heads,
        "intermediate_size": round(spec.mlp_ratio * spec.width),
        "max_position_embeddings": spec.max_positions,
        "vocab_size": shape.facts["vocab_size"],
        "hidden_act": {"swiglu": "silu", "geglu": "gelu"}[spec.mlp],
        "rms_norm_eps": spec.norm_epsilon,
        "rope_theta": spec.rotary_base,
        "attention_bias": spec.bias,
        "mlp_bias": spec.bias,
        "attention_dropout": spec.dropout,
        "bos_token_id": None,
        "eos_token_id": None,
        **special_ids(shape.facts),
    }
    return same_again(read, config, shape)


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor; norms have no biases."""
    hidden, shared = round(spec.mlp_ratio * spec.width), spec.key_value_heads or spec.heads
    inner = shared * spec.width // spec.heads
    qkv = tuple(f"self_attn.{part}_proj" for part in ("q", "k", "v"))
    matrices = with_bias(
        {
            "attention.qkv": (qkv, Stacked((spec.width, inner, inner))),
            "attention.out": (("self_attn.o_proj",), SAME),
            "feed_forward.up": (("mlp.gate_proj", "mlp.up_proj"), Stacked((hidden, hidden))),
            "feed_forward.down": (("mlp.down_proj",), SAME),
        },
        spec.bias,
    )
    norms = {"attention_norm": (("input_layernorm",), SAME), "feed_forward_norm": (("post_attention_layernorm",), SAME)}
    return [
        Row("token.weight", ("embed_tokens.weight",)),
        Row("final_norm.weight", ("norm.weight",)),
        *layered(spec.depth, {**matrices, **with_bias(norms, bias=False)}, "layers"),
    ]


FAMILY = Family(
    model_types=("llama",),
    model_class="LlamaModel",
    prefixes=("model.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(Ignored(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq", "rotary wavelengths, a buffer"),),
    tag=classifiers.each_token("LlamaForTokenClassification", "model.", "score"),
)
