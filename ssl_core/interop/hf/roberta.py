"""RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692), XLM-R: BERT whose positions begin behind its padding.

One token type, which is folded into the positions, as for BERT.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Public, Row, Shape
from ssl_core.interop.hf import bert
from ssl_core.interop.hf._text import special_ids, text_shape
from ssl_core.interop.hf._trunk import ACTIVATIONS, THEIR_ACTIVATION, dropout, same_again
from ssl_core.interop.transforms import Positions

_SKIPPED, _PADDING, _TYPES = 2, 1, 1
"""Rows in front of the positions; the padding id that makes them so; token types."""


def read(public: Public) -> Shape:
    """RoBERTa's config as a post-norm trunk with learned positions."""
    public.one_of("position_embedding_type", {"absolute": None}, "absolute")
    public.one_of("is_decoder", {False: None}, False)
    public.one_of("type_vocab_size", {_TYPES: None}, 2)
    public.one_of("pad_token_id", {_PADDING: None}, _PADDING)
    width = public.whole("hidden_size", 768)
    backbone = EncoderSpec(
        name="custom", family="transformer", width=width, depth=public.whole("num_hidden_layers", 12),
        heads=public.whole("num_attention_heads", 12), mlp_ratio=public.whole("intermediate_size", 3072) / width,
        positions="learned", max_positions=public.whole("max_position_embeddings", 512) - _SKIPPED, norm="post",
        mlp=public.one_of("hidden_act", ACTIVATIONS, "gelu"), norm_epsilon=public.number("layer_norm_eps", 1e-12),
        dropout=dropout(public, "hidden_dropout_prob"),
    )  # fmt: skip
    shape = text_shape(public, backbone, public.whole("vocab_size", 50265))
    return replace(shape, facts={**shape.facts, "pad_id": _PADDING})


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where padding is 1 and the trunk is BERT's."""
    spec = shape.backbone
    if spec.family != "transformer":
        return None
    if shape.facts.get("pad_id") != _PADDING:
        return None
    config = {
        "model_type": "roberta",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": round(spec.mlp_ratio * spec.width),
        "max_position_embeddings": spec.max_positions + _SKIPPED,
        "vocab_size": shape.facts["vocab_size"],
        "type_vocab_size": _TYPES,
        "hidden_act": THEIR_ACTIVATION[spec.mlp],
        "layer_norm_eps": spec.norm_epsilon,
        "hidden_dropout_prob": spec.dropout,
        "attention_probs_dropout_prob": spec.dropout,
        **special_ids(shape.facts),
    }
    return same_again(read, config, shape)


def rows(spec: EncoderSpec) -> list[Row]:
    """BERT's, with the positions moved."""
    moved = Positions(skip=_SKIPPED, types=_TYPES)
    return [replace(row, how=moved) if row.ours == "position.weight" else row for row in bert.rows(spec)]


FAMILY = Family(
    model_types=("roberta", "xlm-roberta"),
    model_class="RobertaModel",
    prefixes=("roberta.",),
    read=read,
    write=write,
    rows=rows,
    ignored=bert.FAMILY.ignored,
    classify=classifiers.after_tanh(
        "RobertaForSequenceClassification", "roberta.", "classifier.dense", "classifier.out_proj"
    ),
    tag=classifiers.each_token("RobertaForTokenClassification", "roberta.", "classifier"),
)
