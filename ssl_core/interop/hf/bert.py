"""BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805): `BertModel` and the models with heads on it.

Token types are folded: every token of ours is of sentence A, so its embedding is added to the positions'.
"""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Ignored, Public, Row, Shape, inexpressible, layered, with_bias
from ssl_core.interop.hf._text import special_ids, text_shape
from ssl_core.interop.transforms import SAME, Positions, Stacked

ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
    "quick_gelu": "quick_gelu",
}  # fmt: skip
_THEIR_ACTIVATION = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "quick_gelu": "quick_gelu"}
_TYPES = 2


def read(public: Public) -> Shape:
    """BERT's config as a post-norm trunk with learned positions."""
    public.one_of("position_embedding_type", {"absolute": None}, "absolute")
    public.one_of("is_decoder", {False: None}, False)
    public.one_of("type_vocab_size", {_TYPES: None}, _TYPES)
    width = public.whole("hidden_size", 768)
    backbone = EncoderSpec(
        name="custom", family="transformer", width=width, depth=public.whole("num_hidden_layers", 12),
        heads=public.whole("num_attention_heads", 12), mlp_ratio=public.whole("intermediate_size", 3072) / width,
        positions="learned", max_positions=public.whole("max_position_embeddings", 512), norm="post",
        mlp=public.one_of("hidden_act", ACTIVATIONS, "gelu"), norm_epsilon=public.number("layer_norm_eps", 1e-12),
        dropout=min(0.5, public.number("hidden_dropout_prob", 0.1)), pooling="mean",
    )  # fmt: skip
    return text_shape(public, backbone, public.whole("vocab_size", 30522))


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where the trunk is post-norm with learned positions, biases everywhere and a table of its width."""
    spec = shape.backbone
    if spec.family != "transformer" or spec.norm != "post" or spec.positions != "learned":
        return None
    if spec.embedding_width or spec.key_value_heads or spec.window or spec.attention != "full":
        return None
    if spec.norm_kind != "layer" or not spec.bias or not spec.embedding_norm or spec.mlp not in _THEIR_ACTIVATION:
        raise inexpressible("BERT", "it has layer norms with biases, one behind the embedding, and no gates")
    if spec.layer_scale or spec.token_dropout or spec.qkv_bias == "no":
        raise inexpressible("BERT", "it has biases of queries, no layer scale and no token dropout")
    return {
        "model_type": "bert",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": round(spec.mlp_ratio * spec.width),
        "max_position_embeddings": spec.max_positions,
        "vocab_size": shape.facts["vocab_size"],
        "type_vocab_size": _TYPES,
        "hidden_act": _THEIR_ACTIVATION[spec.mlp],
        "layer_norm_eps": spec.norm_epsilon,
        "hidden_dropout_prob": spec.dropout,
        "attention_probs_dropout_prob": spec.dropout,
        **special_ids(shape.facts),
    }


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor."""
    stacked = Stacked((spec.width,) * 3)
    qkv = tuple(f"attention.self.{part}" for part in ("query", "key", "value"))
    layer = with_bias(
        {
            "attention.qkv": (qkv, stacked),
            "attention.out": (("attention.output.dense",), SAME),
            "attention_norm": (("attention.output.LayerNorm",), SAME),
            "feed_forward.up": (("intermediate.dense",), SAME),
            "feed_forward.down": (("output.dense",), SAME),
            "feed_forward_norm": (("output.LayerNorm",), SAME),
        }
    )
    tables = ("embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight")
    return [
        Row("token.weight", ("embeddings.word_embeddings.weight",)),
        Row("position.weight", tables, Positions(types=_TYPES)),
        Row("embedding_norm.weight", ("embeddings.LayerNorm.weight",)),
        Row("embedding_norm.bias", ("embeddings.LayerNorm.bias",)),
        *layered(spec.depth, layer, "encoder.layer"),
    ]


FAMILY = Family(
    model_types=("bert",),
    model_class="BertModel",
    prefixes=("bert.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(
        Ignored(r"pooler\.dense\.(weight|bias)", "the head of next-sentence prediction"),
        Ignored(r"embeddings\.(position_ids|token_type_ids)", "a buffer of counted numbers"),
    ),
    classify=classifiers.after_tanh("BertForSequenceClassification", "bert.", "bert.pooler.dense", "classifier"),
    tag=classifiers.each_token("BertForTokenClassification", "bert.", "classifier"),
)
