"""AST (Gong et al. 2021, https://arxiv.org/abs/2104.01778): `ASTModel`, a ViT on overlapping patches of spectrograms.

The encoder is theirs to the last digit. What it reads is not: their filter bank is Kaldi's and ours is that of
`ssl_core.spectrograms`, so such weights are a start for training on ours, and vectors of theirs need their features.
"""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop.base import Family, Ignored, Public, Row, Shape, inexpressible, layered, unsupported
from ssl_core.interop.hf import vit
from ssl_core.interop.hf._pictures import (
    EachToken,
    Unbatched,
    check_trunk,
    hidden_size,
    layer_rows,
    norm_rows,
    patch_rows,
    trunk_config,
)
from ssl_core.modalities.audio import AudioModality

_HOP_MS = 10.0
_MEAN, _DEVIATION = -4.2677393, 2 * 4.5689974
"""Of AudioSet, by which AST's features are brought to a deviation of a half."""


def read(public: Public) -> Shape:
    """Frames are the width, bands the height; the mean of both class tokens is its vector."""
    step = public.whole("frequency_stride", 10)
    if public.whole("time_stride", 10) != step:
        raise unsupported("time_stride", public.config.get("time_stride"), f"the frequency_stride, {step}")
    bands, frames = public.whole("num_mel_bins", 128), public.whole("max_length", 1024)
    for name, value, most in (("num_mel_bins", bands, 256), ("max_length", frames, 6000)):
        if value % 16 or not 16 <= value <= most:
            raise unsupported(name, value, f"multiples of 16 up to {most}")
    spec = EncoderSpec.model_validate(
        {**vit.fields(public), "positions": "learned", "pooling": "cls", "class_tokens": 2, "patch_stride": step}
    )
    modality = AudioModality(mels=bands, hop_ms=_HOP_MS, seconds=frames * _HOP_MS / 1000)
    facts = {**modality.shape(), "mean": _MEAN, "std": _DEVIATION}
    return Shape(spec, modality, facts)


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where there are two class tokens on spectrograms."""
    spec = shape.backbone
    if spec.family != "vit" or spec.class_tokens != 2:
        return None
    check_trunk(spec, "AST", strided=True)
    if spec.positions != "learned" or spec.pooling != "cls" or spec.embedding_norm or not spec.patch_bias:
        raise inexpressible("AST", "it has learned positions, biases, the mean of its class tokens, no first norm")
    if "height" not in shape.facts or shape.facts["channels"] != 1:
        raise inexpressible("AST", "it reads spectrograms")
    step = spec.patch_stride or spec.patch_size
    told = trunk_config(shape)
    del told["num_channels"]
    return {
        "model_type": "audio-spectrogram-transformer",
        "intermediate_size": hidden_size(spec),
        "num_mel_bins": shape.facts["height"],
        "max_length": shape.facts["width"],
        "frequency_stride": step,
        "time_stride": step,
        "qkv_bias": spec.qkv_bias != "no",
        **told,
    }


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor."""
    return [
        *patch_rows(spec, "embeddings.patch_embeddings.projection"),
        Row("class_token", ("embeddings.cls_token", "embeddings.distillation_token"), EachToken()),
        Row("position", ("embeddings.position_embeddings",), Unbatched()),
        *layered(spec.depth, layer_rows(spec, vit.LAYER), "encoder.layer"),
        *norm_rows("final_norm", "layernorm"),
    ]


FAMILY = Family(
    model_types=("audio-spectrogram-transformer",),
    model_class="ASTModel",
    prefixes=("audio_spectrogram_transformer.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(Ignored(r"classifier\..*", "a classifier of their classes"),),
    inputs="pixels",
    feed=lambda ours: {"input_values": ours["pixel_values"][:, 0].transpose(1, 2)},
)
