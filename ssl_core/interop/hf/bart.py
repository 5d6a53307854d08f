"""BART (Lewis et al. 2019, https://arxiv.org/abs/1910.13461): its encoder, which is BERT with positions behind padding.

The decoder is left out: a model of this platform is an encoder, and sequence-to-sequence pretraining starts a decoder
of its own. Written again, the encoder is a BERT, which computes the same.
"""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop.base import Family, Ignored, Public, Row, Shape, layered, with_bias
from ssl_core.interop.hf._text import text_shape
from ssl_core.interop.hf._trunk import ACTIVATIONS, dropout
from ssl_core.interop.transforms import SAME, Positions, Stacked

_SKIPPED = 2


def read(public: Public) -> Shape:
    """The encoder of BART's config as a post-norm trunk with learned positions."""
    public.one_of("scale_embedding", {False: None}, False)
    width = public.whole("d_model", 1024)
    backbone = EncoderSpec(
        name="custom", family="transformer", width=width, depth=public.whole("encoder_layers", 12),
        heads=public.whole("encoder_attention_heads", 16), mlp_ratio=public.whole("encoder_ffn_dim", 4096) / width,
        positions="learned", max_positions=public.whole("max_position_embeddings", 1024), norm="post",
        mlp=public.one_of("activation_function", ACTIVATIONS, "gelu"), dropout=dropout(public, "dropout"),
    )  # fmt: skip
    return text_shape(public, backbone, public.whole("vocab_size", 50265))


def write(shape: Shape) -> dict[str, Any] | None:
    """Never: a BART without its decoder is none."""
    return None


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor."""
    qkv = tuple(f"self_attn.{part}_proj" for part in ("q", "k", "v"))
    layer = with_bias(
        {
            "attention.qkv": (qkv, Stacked((spec.width,) * 3)),
            "attention.out": (("self_attn.out_proj",), SAME),
            "attention_norm": (("self_attn_layer_norm",), SAME),
            "feed_forward.up": (("fc1",), SAME),
            "feed_forward.down": (("fc2",), SAME),
            "feed_forward_norm": (("final_layer_norm",), SAME),
        }
    )
    return [
        Row("token.weight", ("shared.weight",)),
        Row("position.weight", ("encoder.embed_positions.weight",), Positions(skip=_SKIPPED)),
        Row("embedding_norm.weight", ("encoder.layernorm_embedding.weight",)),
        Row("embedding_norm.bias", ("encoder.layernorm_embedding.bias",)),
        *layered(spec.depth, layer, "encoder.layers"),
    ]


FAMILY = Family(
    model_types=("bart",),
    model_class="BartModel",
    prefixes=("model.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(
        Ignored(r"decoder\..*", "the decoder"),
        Ignored(r"encoder\.embed_tokens\.weight", "the shared table once more"),
    ),
)
