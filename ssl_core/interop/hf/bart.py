"""BART (Lewis et al. 2019, https://arxiv.org/abs/1910.13461): an encoder, which is BERT with positions behind padding,
and its decoder.

A decoder of another width of feed-forward or number of heads than the encoder's is left out. An encoder without a
decoder is written as a BERT, which computes the same. The output layer's bias, which no public model was trained with,
is left out.
"""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop.base import Family, Ignored, Public, Row, Shape, Writes, layered, unsupported, with_bias
from ssl_core.interop.hf._text import special_ids, text_shape
from ssl_core.interop.hf._trunk import ACTIVATIONS, THEIR_ACTIVATION, dropout, same_again
from ssl_core.interop.transforms import SAME, Positions, Stacked, Transform

_SKIPPED = 2
_DEEPEST = 101


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


def depth(public: Public) -> int:
    """Layers of a decoder that is as wide as the encoder in every way; 0 of another.

    Raises:
        SpecError: `unsupported_config`, there are more layers than a backbone has.
    """
    same = [("attention_heads", 16), ("ffn_dim", 4096)]
    if any(public.whole(f"decoder_{name}", usual) != public.whole(f"encoder_{name}", usual) for name, usual in same):
        return 0
    layers = public.whole("decoder_layers", 12)
    if layers > _DEEPEST:
        raise unsupported("decoder_layers", layers, f"at most {_DEEPEST}")
    return layers


def write_both(shape: Shape, layers: int, entries: int) -> dict[str, Any] | None:
    """The config of an encoder of BART's shape with a decoder of so many layers."""
    spec = shape.backbone
    hidden = round(spec.mlp_ratio * spec.width)
    config: dict[str, Any] = {
        "model_type": "bart", "is_encoder_decoder": True, "vocab_size": entries, "d_model": spec.width,
        "encoder_layers": spec.depth, "decoder_layers": layers, "encoder_attention_heads": spec.heads,
        "decoder_attention_heads": spec.heads, "encoder_ffn_dim": hidden, "decoder_ffn_dim": hidden,
        "max_position_embeddings": spec.max_positions, "activation_function": THEIR_ACTIVATION[spec.mlp],
        "dropout": spec.dropout, "attention_dropout": spec.dropout, "activation_dropout": 0.0, "scale_embedding": False,
        "tie_word_embeddings": True, **special_ids(shape.facts), "decoder_start_token_id": shape.facts.get("sep_id"),
        "forced_eos_token_id": None,
    }  # fmt: skip
    return same_again(read, config, shape)


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor of the encoder."""
    return [
        Row("token.weight", ("shared.weight",)),
        *_outside("encoder"),
        *layered(spec.depth, with_bias(_layer(spec)), "encoder.layers"),
    ]


def decoder_rows(spec: EncoderSpec, layers: int) -> list[Row]:
    """Every tensor of the decoder."""
    keys = tuple(f"encoder_attn.{part}_proj" for part in ("k", "v"))
    crossing: dict[str, tuple[tuple[str, ...], Transform]] = {
        "crossing.query": (("encoder_attn.q_proj",), SAME),
        "crossing.key_value": (keys, Stacked((spec.width,) * 2)),
        "crossing.out": (("encoder_attn.out_proj",), SAME),
        "crossing_norm": (("encoder_attn_layer_norm",), SAME),
    }
    return [*_outside("decoder"), *layered(layers, with_bias(_layer(spec) | crossing), "decoder.layers")]


def _outside(side: str) -> list[Row]:
    return [
        Row("position.weight", (f"{side}.embed_positions.weight",), Positions(skip=_SKIPPED)),
        Row("embedding_norm.weight", (f"{side}.layernorm_embedding.weight",)),
        Row("embedding_norm.bias", (f"{side}.layernorm_embedding.bias",)),
    ]


def _layer(spec: EncoderSpec) -> dict[str, tuple[tuple[str, ...], Transform]]:
    """What layers of both sides have."""
    qkv = tuple(f"self_attn.{part}_proj" for part in ("q", "k", "v"))
    return {
        "attention.qkv": (qkv, Stacked((spec.width,) * 3)),
        "attention.out": (("self_attn.out_proj",), SAME),
        "attention_norm": (("self_attn_layer_norm",), SAME),
        "feed_forward.up": (("fc1",), SAME),
        "feed_forward.down": (("fc2",), SAME),
        "feed_forward_norm": (("final_layer_norm",), SAME),
    }


FAMILY = Family(
    model_types=("bart",),
    model_class="BartModel",
    prefixes=("model.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(
        Ignored(r"(encoder|decoder)\.embed_tokens\.weight", "the shared table once more"),
        Ignored(r"decoder\..*", "the decoder, which is of another shape than the encoder"),
    ),
    decoder=Writes("BartForConditionalGeneration", "model.", depth, decoder_rows, write_both),
)
