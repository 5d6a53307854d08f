"""GPT-2 (Radford et al. 2019, "Language models are unsupervised multitask learners"): causal, learned positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Headed, Ignored, Public, Row, Shape, inexpressible, layered, with_bias
from ssl_core.interop.hf._text import special_ids, text_shape
from ssl_core.interop.hf._trunk import ACTIVATIONS, THEIR_ACTIVATION, dropout, same_again
from ssl_core.interop.transforms import SAME, TRANSPOSED


def read(public: Public) -> Shape:
    """GPT-2's config as a causal pre-norm trunk without a norm behind the embedding."""
    public.one_of("scale_attn_weights", {True: None}, True)
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        public.one_of(name, {False: None}, False)
    width = public.whole("n_embd", 768)
    inner = 4 * width if public.config.get("n_inner") is None else public.whole("n_inner")
    backbone = EncoderSpec(
        name="custom", family="transformer", width=width, depth=public.whole("n_layer", 12),
        heads=public.whole("n_head", 12), mlp_ratio=inner / width, attention="causal", embedding_norm=False,
        positions="learned", max_positions=public.whole("n_positions", 1024),
        mlp=public.one_of("activation_function", ACTIVATIONS, "gelu_new"),
        norm_epsilon=public.number("layer_norm_epsilon", 1e-5), dropout=dropout(public, "resid_pdrop"),
    )  # fmt: skip
    return text_shape(public, backbone, public.whole("vocab_size", 50257))


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where the trunk is causal with learned positions and plain norms and heads."""
    spec = shape.backbone
    if spec.family != "transformer":
        return None
    config = {
        "model_type": "gpt2",
        "n_embd": spec.width,
        "n_layer": spec.depth,
        "n_head": spec.heads,
        "n_inner": round(spec.mlp_ratio * spec.width),
        "n_positions": spec.max_positions,
        "vocab_size": shape.facts["vocab_size"],
        "activation_function": THEIR_ACTIVATION[spec.mlp],
        "layer_norm_epsilon": spec.norm_epsilon,
        "resid_pdrop": spec.dropout,
        "embd_pdrop": spec.dropout,
        "attn_pdrop": spec.dropout,
        "bos_token_id": None,
        "eos_token_id": None,
        **special_ids(shape.facts),
    }
    return same_again(read, config, shape)


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor; their matrices stand (in, out)."""
    layer = with_bias(
        {
            "attention_norm": (("ln_1",), SAME),
            "attention.qkv": (("attn.c_attn",), TRANSPOSED),
            "attention.out": (("attn.c_proj",), TRANSPOSED),
            "feed_forward_norm": (("ln_2",), SAME),
            "feed_forward.up": (("mlp.c_fc",), TRANSPOSED),
            "feed_forward.down": (("mlp.c_proj",), TRANSPOSED),
        }
    )
    return [
        Row("token.weight", ("wte.weight",)),
        Row("position.weight", ("wpe.weight",)),
        Row("final_norm.weight", ("ln_f.weight",)),
        Row("final_norm.bias", ("ln_f.bias",)),
        *layered(spec.depth, layer, "h"),
    ]


def classify(shape: Shape, trunk: Mapping[str, Any], weight: Any, bias: Any) -> Headed:
    """Theirs reads the last token and has no bias. What the last norm gives holds one number that never changes: its
    channels, each divided by the norm's weight, add up to what the norm's biases do. The bias is put on that."""
    name = "GPT2ForSequenceClassification"
    classifiers.needs(shape, "last", name)
    if "pad_id" not in shape.facts:
        raise inexpressible(name, "it finds the last token by the padding behind it, and this tokenizer has none")
    gain, offset = trunk["ln_f.weight"].double(), trunk["ln_f.bias"].double()
    constant = (offset / gain).sum()
    if not constant**2 > 1e-4 * len(gain):  # too near 0 to carry a bias in float32, or no number
        raise inexpressible(name, "its linear layer has no bias, and this model's last norm has none to stand for it")
    carried = weight.double() + bias.double()[:, None] / (constant * gain)
    return Headed(name, classifiers.under("transformer.", trunk) | {"score.weight": carried.float().contiguous()})


FAMILY = Family(
    model_types=("gpt2",),
    model_class="GPT2Model",
    prefixes=("transformer.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(Ignored(r"h\.\d+\.attn\.(bias|masked_bias)", "the causal mask, a buffer"),),
    classify=classify,
    tag=classifiers.each_token("GPT2ForTokenClassification", "transformer.", "classifier"),
)
