"""ELECTRA (Clark et al. 2020, https://arxiv.org/abs/2003.10555): BERT with a token table that may be narrower.

An ELECTRA whose table is as wide as its layers is BERT, and is written as that.
"""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Public, Row, Shape
from ssl_core.interop.hf import bert
from ssl_core.interop.hf._text import special_ids, text_shape
from ssl_core.interop.hf._trunk import ACTIVATIONS, THEIR_ACTIVATION, dropout, same_again

_TYPES = 2


def read(public: Public) -> Shape:
    """ELECTRA's config as a post-norm trunk with learned positions and a narrow table."""
    public.one_of("position_embedding_type", {"absolute": None}, "absolute")
    public.one_of("is_decoder", {False: None}, False)
    public.one_of("type_vocab_size", {_TYPES: None}, _TYPES)
    width, narrow = public.whole("hidden_size", 256), public.whole("embedding_size", 128)
    backbone = EncoderSpec(
        name="custom", family="transformer", width=width, depth=public.whole("num_hidden_layers", 12),
        heads=public.whole("num_attention_heads", 4), mlp_ratio=public.whole("intermediate_size", 1024) / width,
        positions="learned", max_positions=public.whole("max_position_embeddings", 512), norm="post",
        mlp=public.one_of("hidden_act", ACTIVATIONS, "gelu"), norm_epsilon=public.number("layer_norm_eps", 1e-12),
        dropout=dropout(public, "hidden_dropout_prob"), embedding_width=0 if narrow == width else narrow,
    )  # fmt: skip
    return text_shape(public, backbone, public.whole("vocab_size", 30522))


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where the trunk is BERT's with a narrow table."""
    spec = shape.backbone
    if spec.family != "transformer":
        return None
    if spec.embedding_width in (0, spec.width):
        return None
    config = {
        "model_type": "electra",
        "embedding_size": spec.embedding_width,
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": round(spec.mlp_ratio * spec.width),
        "max_position_embeddings": spec.max_positions,
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
    """BERT's, and the projection."""
    project = [Row(f"project.{kind}", (f"embeddings_project.{kind}",)) for kind in ("weight", "bias")]
    return bert.rows(spec) + (project if spec.embedding_width else [])


FAMILY = Family(
    model_types=("electra",),
    model_class="ElectraModel",
    prefixes=("electra.",),
    read=read,
    write=write,
    rows=rows,
    ignored=bert.FAMILY.ignored,
    classify=classifiers.after_gelu(
        "ElectraForSequenceClassification", "electra.", "classifier.dense", "classifier.out_proj"
    ),
    tag=classifiers.each_token("ElectraForTokenClassification", "electra.", "classifier"),
)
