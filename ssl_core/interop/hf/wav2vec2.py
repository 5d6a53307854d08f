"""wav2vec 2.0 (Baevski et al. 2020, https://arxiv.org/abs/2006.11477): `Wav2Vec2Model`, base and large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.backbones import STEM_STEPS, EncoderSpec
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Headed, Ignored, Public, Row, Shape, inexpressible, layered, unsupported
from ssl_core.interop.hf._pictures import ACTIVATIONS, THEIR_ACTIVATION, hidden_size, layer_rows, norm_rows
from ssl_core.modalities.audio import AudioModality

_LAYER = {
    "attention.qkv": "attention.q_proj attention.k_proj attention.v_proj",
    "attention.out": "attention.out_proj",
    "attention_norm": "layer_norm",
    "feed_forward.up": "feed_forward.intermediate_dense",
    "feed_forward.down": "feed_forward.output_dense",
    "feed_forward_norm": "final_layer_norm",
}
_SECONDS = 1.0
"""Read of a clip where the folder does not say: a start to train from, which a job's own settings replace."""


def read(public: Public) -> Shape:
    """Norms in front of the layers where theirs are `stable`, behind them otherwise."""
    public.one_of("add_adapter", {False: None}, False)
    public.one_of("feat_extract_activation", {"gelu": None}, "gelu")
    pre, width = public.one_of("do_stable_layer_norm", {True: True, False: False}, False), public.whole("hidden_size")
    spec = EncoderSpec.model_validate(
        {
            "name": "custom", "family": "wave", "width": width, "depth": public.whole("num_hidden_layers", 12),
            "heads": public.whole("num_attention_heads", 12), "positions": "convolution",
            "mlp_ratio": public.whole("intermediate_size", 3072) / width, "norm": "pre" if pre else "post",
            "embedding_norm": not pre, "mlp": public.one_of("hidden_act", ACTIVATIONS, "gelu"),
            "norm_epsilon": public.number("layer_norm_eps", 1e-5),
            "dropout": min(0.5, public.number("hidden_dropout", 0.1)), **_stem(public),
            "position_kernel": public.whole("num_conv_pos_embeddings", 128),
            "position_groups": public.whole("num_conv_pos_embedding_groups", 16),
        }
    )  # fmt: skip
    told = Public({**public.config, **public.extras.get("preprocessor_config.json", {})})
    modality = AudioModality(
        representation="waveform",
        sample_rate=told.whole("sampling_rate", 16_000),
        seconds=told.number("seconds_read", _SECONDS),
    )
    return Shape(spec, modality, {**modality.shape(), "mean": 0.0, "std": 1.0})


def _stem(public: Public) -> dict[str, Any]:
    """The fields of the convolutions. Raises SpecError `unsupported_config` for others than the paper's first ones."""
    steps = tuple(zip(public.config.get("conv_kernel", ()), public.config.get("conv_stride", ()), strict=False))
    stem = next((name for name, known in STEM_STEPS.items() if known == steps), None)
    if stem is None:
        kernels = " or ".join(str([kernel for kernel, _ in known]) for known in STEM_STEPS.values())
        raise unsupported("conv_kernel", public.config.get("conv_kernel"), f"{kernels}, of strides 5, 2, 2, ...")
    widths = public.config.get("conv_dim", ())
    if not isinstance(widths, list | tuple) or len(set(widths)) != 1 or len(widths) != len(steps):
        raise unsupported("conv_dim", widths, "one width for all convolutions")
    return {
        "stem": stem,
        "stem_width": widths[0],
        "stem_norm": public.one_of("feat_extract_norm", {"group": "group", "layer": "layer"}, "group"),
        "stem_bias": public.one_of("conv_bias", {True: True, False: False}, False),
    }


def write(shape: Shape) -> dict[str, Any] | None:
    """The config of every encoder of the family with convolutional positions."""
    spec = shape.backbone
    if spec.family != "wave":
        return None
    if spec.positions != "convolution" or spec.norm_kind != "layer" or not spec.bias or spec.qkv_bias == "no":
        raise inexpressible("wav2vec 2.0", "it has convolutional positions and layer norms, and biases everywhere")
    if spec.mlp not in THEIR_ACTIVATION or spec.layer_scale or spec.key_value_heads not in (0, spec.heads):
        raise inexpressible("wav2vec 2.0", "it has no gates, no layer scale and no grouped queries")
    if spec.embedding_norm == (spec.norm == "pre"):
        raise inexpressible("wav2vec 2.0", "it has a norm behind the embedding exactly where none is before the layers")
    steps = STEM_STEPS[spec.stem]
    return {
        "model_type": "wav2vec2",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": hidden_size(spec),
        "do_stable_layer_norm": spec.norm == "pre",
        "hidden_act": THEIR_ACTIVATION[spec.mlp],
        "layer_norm_eps": spec.norm_epsilon,
        "conv_dim": [spec.stem_width] * len(steps),
        "conv_kernel": [kernel for kernel, _ in steps],
        "conv_stride": [stride for _, stride in steps],
        "num_feat_extract_layers": len(steps),
        "feat_extract_norm": spec.stem_norm,
        "conv_bias": spec.stem_bias,
        "num_conv_pos_embeddings": spec.position_kernel,
        "num_conv_pos_embedding_groups": spec.position_groups,
        **dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout"), spec.dropout),
        "layerdrop": 0.0,
        "sampling_rate": shape.facts["sample_rate"],
        "seconds_read": shape.facts["samples"] / shape.facts["sample_rate"],
    }


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor, the positions' weight norm in two parts."""
    made: list[Row] = []
    for at in range(len(STEM_STEPS[spec.stem])):
        place = f"feature_extractor.conv_layers.{at}"
        kinds = ("weight", "bias") if spec.stem_bias else ("weight",)
        made += [Row(f"stem.{at}.conv.{kind}", (f"{place}.conv.{kind}",)) for kind in kinds]
        if at == 0 or spec.stem_norm == "layer":
            made += norm_rows(f"stem.{at}.norm", f"{place}.layer_norm")
    last = "final_norm" if spec.norm == "pre" else "embedding_norm"
    positions = "encoder.pos_conv_embed.conv"
    return [
        *made,
        *norm_rows("feature_norm", "feature_projection.layer_norm"),
        *(Row(f"project.{kind}", (f"feature_projection.projection.{kind}",)) for kind in ("weight", "bias")),
        Row("position.gain", (f"{positions}.parametrizations.weight.original0",)),
        Row("position.direction", (f"{positions}.parametrizations.weight.original1",)),
        Row("position.bias", (f"{positions}.bias",)),
        *norm_rows(last, "encoder.layer_norm"),
        *layered(spec.depth, layer_rows(spec, _LAYER), "encoder.layers"),
    ]


def classify(shape: Shape, trunk: Mapping[str, Any], weight: Any, bias: Any) -> Headed:
    """Theirs projects every frame, here onto itself, before the mean."""
    import torch

    width = shape.backbone.width
    projector = classifiers.layer("projector", torch.eye(width), torch.zeros(width))
    head = projector | classifiers.layer("classifier", weight, bias)
    told = {"classifier_proj_size": width, "use_weighted_layer_sum": False}
    return Headed("Wav2Vec2ForSequenceClassification", classifiers.under("wav2vec2.", trunk) | head, told)


FAMILY = Family(
    model_types=("wav2vec2",),
    model_class="Wav2Vec2Model",
    prefixes=("wav2vec2.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(Ignored(r"masked_spec_embed", "stands for hidden frames; objectives have their own"),),
    classify=classify,
    inputs="wave",
)
