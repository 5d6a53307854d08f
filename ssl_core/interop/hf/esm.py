"""ESM-2 (Lin et al. 2023, https://www.science.org/doi/10.1126/science.ade2574): proteins, rotary positions."""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.data import residues
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Ignored, Public, Row, Shape, layered, with_bias
from ssl_core.interop.hf._trunk import LONGEST, dropout, same_again
from ssl_core.interop.transforms import SAME, Stacked
from ssl_core.modalities.protein import ProteinModality

_MASKED = 0.15 * 0.8
"""Share of mask tokens in ESM-2's training, which its token dropout assumes."""
_READ = 1022
"""Residues of a chain that ESM-2 was trained on."""


def read(public: Public) -> Shape:
    """ESM-2's config as a pre-norm trunk on the alphabet of proteins, which is the same."""
    public.one_of("position_embedding_type", {"rotary": None}, "absolute")
    for name in ("is_folding_model", "is_decoder", "add_cross_attention"):
        public.one_of(name, {False: None}, False)
    public.one_of("emb_layer_norm_before", {False: None, None: None})
    vocabulary = public.one_of("vocab_size", {len(residues.TOKENS): len(residues.TOKENS)})
    public.one_of("mask_token_id", {residues.MASK: None}, residues.MASK)
    width = public.whole("hidden_size", 768)
    backbone = EncoderSpec(
        name="custom", family="transformer", width=width, depth=public.whole("num_hidden_layers", 12),
        heads=public.whole("num_attention_heads", 12), mlp_ratio=public.whole("intermediate_size", 3072) / width,
        embedding_norm=False, max_positions=min(LONGEST, public.whole("max_position_embeddings", 1026)),
        rotary_base=public.number("rope_theta", 10_000.0), norm_epsilon=public.number("layer_norm_eps", 1e-12),
        token_dropout=_MASKED if public.one_of("token_dropout", {True: True, False: False}, False) else 0.0,
        dropout=dropout(public, "hidden_dropout_prob"),
    )  # fmt: skip
    length = min(_READ, backbone.max_positions)
    modality = ProteinModality(max_length=length, span_min=min(32, length), span_max=min(128, length))
    return Shape(backbone, modality, {**residues.facts(length), "vocab_size": vocabulary})


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where the trunk reads proteins and has no norm behind the embedding."""
    spec = shape.backbone
    if spec.family != "transformer":
        return None
    if shape.facts["vocab_size"] != len(residues.TOKENS) or shape.facts.get("mask_id") != residues.MASK:
        return None
    config = {
        "model_type": "esm",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": round(spec.mlp_ratio * spec.width),
        "max_position_embeddings": spec.max_positions,
        "vocab_size": len(residues.TOKENS),
        "vocab_list": list(residues.TOKENS),
        "position_embedding_type": "rotary",
        "emb_layer_norm_before": False,
        "token_dropout": spec.token_dropout > 0,
        "rope_theta": spec.rotary_base,
        "layer_norm_eps": spec.norm_epsilon,
        "hidden_dropout_prob": spec.dropout,
        "attention_probs_dropout_prob": spec.dropout,
        "pad_token_id": residues.PAD,
        "mask_token_id": residues.MASK,
        "cls_token_id": residues.CLS,
        "eos_token_id": residues.EOS,
    }
    return same_again(read, config, shape)


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor."""
    qkv = tuple(f"attention.self.{part}" for part in ("query", "key", "value"))
    layer = with_bias(
        {
            "attention.qkv": (qkv, Stacked((spec.width,) * 3)),
            "attention.out": (("attention.output.dense",), SAME),
            "attention_norm": (("attention.LayerNorm",), SAME),
            "feed_forward.up": (("intermediate.dense",), SAME),
            "feed_forward.down": (("output.dense",), SAME),
            "feed_forward_norm": (("LayerNorm",), SAME),
        }
    )
    return [
        Row("token.weight", ("embeddings.word_embeddings.weight",)),
        Row("final_norm.weight", ("encoder.emb_layer_norm_after.weight",)),
        Row("final_norm.bias", ("encoder.emb_layer_norm_after.bias",)),
        *layered(spec.depth, layer, "encoder.layer"),
    ]


FAMILY = Family(
    model_types=("esm",),
    model_class="EsmModel",
    prefixes=("esm.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(
        Ignored(r"contact_head\..*", "the head of contacts between residues"),
        Ignored(r"pooler\.dense\.(weight|bias)", "a head on the first token"),
        Ignored(r"embeddings\.(position_ids|position_embeddings\.weight)", "not used by rotary models"),
        Ignored(r".*rotary_embeddings\.inv_freq", "rotary wavelengths, a buffer"),
    ),
    classify=classifiers.after_tanh("EsmForSequenceClassification", "esm.", "classifier.dense", "classifier.out_proj"),
    tag=classifiers.each_token("EsmForTokenClassification", "esm.", "classifier"),
)
