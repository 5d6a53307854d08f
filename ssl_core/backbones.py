"""Encoder shapes by name, and what each family reads. Imports without torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ssl_core.errors import SpecError
from ssl_core.modalities import MODALITIES
from ssl_core.values import Value

GATED = ("geglu", "swiglu")
"""Nonlinearities with a gate, whose feed-forward has a matrix more."""


class EncoderSpec(Value):
    """The shape of an encoder. A name such as `text-small` stands for one of the rows in `BACKBONES`."""

    name: str = Field(max_length=64, description="a row of `GET /v1/backbones`, or `custom`")
    family: Literal["transformer", "vit", "wave", "convnet", "resnet", "dual"]
    width: int = Field(ge=16, le=4096, description="channels of a token, or of the first stage of a conv net")
    depth: int = Field(ge=1, le=101, description="layers; for a ResNet 18 or 50")
    heads: int = Field(default=1, ge=1, le=64, description="attention heads (transformer)")
    key_value_heads: int = Field(
        default=0, ge=0, le=64, description="heads of keys and values, each shared by several of queries; 0 = heads"
    )
    mlp_ratio: float = Field(default=4.0, ge=1.0, le=8.0)
    positions: Literal["rotary", "learned", "sincos", "convolution", "none"] = "rotary"
    max_positions: int = Field(default=1024, ge=8, le=32768)
    attention: Literal["full", "causal"] = Field(default="full", description="causal: a token sees none behind it")
    window: int = Field(
        default=0, ge=0, le=32768,
        description="tokens that a local layer sees: half on either side, or where causal the last ones; 0 = all",
    )  # fmt: skip
    global_every: int = Field(
        default=0, ge=0, le=101, description="with a window: each such layer, from the first, sees all; 0 = none does"
    )
    norm: Literal["pre", "post"] = "pre"
    norm_kind: Literal["layer", "rms"] = Field(default="layer", description="rms: no mean taken off, never a bias")
    embedding_norm: bool = Field(default=True, description="a norm behind the embedding")
    first_norm: bool = Field(
        default=False, description="pre: a norm before the first layer too where the embedding has one (CLIP's images)"
    )
    mlp: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "geglu", "swiglu"] = "gelu"
    bias: bool = Field(default=True, description="transformer: biases in linear layers and norms")
    qkv_bias: Literal["same", "yes", "no"] = Field(
        default="same", description="biases of queries, keys and values; same = as `bias`"
    )
    layer_scale: float = Field(
        default=0.0, ge=0.0, le=1.0, description="first value of a learned factor on what a layer adds; 0 = none"
    )
    norm_epsilon: float = Field(default=1e-5, gt=0, le=1e-2)
    rotary_base: float = Field(default=10_000.0, ge=100, le=1e7, description="longest rotary wavelength / 2 pi")
    local_rotary_base: float = Field(default=0.0, ge=0, le=1e7, description="the same in local layers; 0 = rotary_base")
    dropout: float = Field(default=0.0, ge=0.0, le=0.5)
    token_dropout: float = Field(
        default=0.0, ge=0.0, le=0.5,
        description="ESM-2: mask tokens enter as zero, others times (1 - this) / (1 - share of mask tokens); 0 = off",
    )  # fmt: skip
    embedding_width: int = Field(
        default=0, ge=0, le=4096, description="of the token table, projected to width (ELECTRA); 0 = width"
    )
    pooling: Literal["mean", "cls", "last", "attention"] = Field(
        default="mean", description="one vector of all: mean, class tokens or first token, last token, learned query"
    )
    stem: Literal["small", "medium", "large"] = Field(
        default="small", description="conv nets: stride 1, 2 or 4 (ResNet: small or large); wave: 80, 160 or 320"
    )
    patch_size: int = Field(default=16, ge=1, le=64, description="vit: pixels along a side of a patch")
    patch_stride: int = Field(default=0, ge=0, le=64, description="vit: pixels from patch to patch; 0 = patch_size")
    patch_bias: bool = Field(default=True, description="vit: a bias in the projection of patches")
    class_tokens: int = Field(default=0, ge=0, le=2, description="vit: learned tokens before the patches")
    register_tokens: int = Field(default=0, ge=0, le=16, description="vit: learned tokens that nobody reads")
    stem_width: int = Field(default=512, ge=16, le=1024, description="wave: channels of the convolutional stem")
    stem_norm: Literal["group", "layer"] = Field(
        default="group", description="wave: one group norm behind the first convolution, or a layer norm behind each"
    )
    stem_bias: bool = Field(default=False, description="wave: biases in the convolutional stem")
    position_kernel: int = Field(default=128, ge=1, le=256, description="convolution: frames that one position sees")
    position_groups: int = Field(default=16, ge=1, le=64, description="convolution: groups of channels")
    image: EncoderSpec | None = Field(default=None, description="dual: the tower for pictures, a name or a shape")
    text: EncoderSpec | None = Field(default=None, description="dual: the tower for texts; width is the shared space's")
    projection: Literal["both", "text"] = Field(
        default="both", description="dual: both towers' vectors go through a matrix, or the texts' alone, with a bias"
    )

    @field_validator("image", "text", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named_backbone(value)

    @model_validator(mode="after")
    def _fits_together(self) -> EncoderSpec:
        complaint = next(_complaints(self), None)
        if complaint is not None:
            raise ValueError(complaint)
        return self


_TRUNKS = ("transformer", "vit", "wave", "dual")
# Which families read a field; another family that sets it is told so.
_FIELDS_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("norm_kind", "embedding_norm", "first_norm", "qkv_bias", "layer_scale"), _TRUNKS),
    **dict.fromkeys(("key_value_heads", "pooling"), _TRUNKS),
    **dict.fromkeys(("attention", "window", "global_every", "local_rotary_base"), ("transformer", "dual")),
    **dict.fromkeys(("token_dropout", "embedding_width"), ("transformer",)),
    **dict.fromkeys(("patch_size", "patch_stride", "patch_bias", "class_tokens", "register_tokens"), ("vit", "dual")),
    **dict.fromkeys(("projection",), ("dual",)),
    **dict.fromkeys(("stem_width", "stem_norm", "stem_bias", "position_kernel", "position_groups"), ("wave",)),
}
STEM_STEPS: dict[str, tuple[tuple[int, int], ...]] = {
    "small": ((10, 5), *((3, 2),) * 4),
    "medium": ((10, 5), *((3, 2),) * 4, (2, 2)),
    "large": ((10, 5), *((3, 2),) * 4, (2, 2), (2, 2)),
}
"""Kernel and stride of each convolution of a wave's stem; `large` is the paper's."""
_PLACES = {
    "transformer": ("rotary", "learned", "none"),
    "vit": ("learned", "sincos", "none"),
    "wave": ("convolution", "none"),
}


def _complaints(spec: EncoderSpec) -> Iterator[str]:
    """What does not go together in a spec, in words."""
    family = spec.family
    if family == "resnet" and spec.depth not in (18, 50):
        yield f"a resnet has depth 18 or 50, not {spec.depth}"
    if family == "resnet" and spec.stem == "medium":
        yield "a resnet has a stem small or large, not medium"
    if family in _TRUNKS and spec.width % (2 * spec.heads):
        yield f"width {spec.width} must be divisible by twice the heads ({spec.heads})"
    for field, families in _FIELDS_OF.items():
        if family not in families and getattr(spec, field) != type(spec).model_fields[field].default:
            yield f"{field} is for {' and '.join(families)}, not for a {family}"
    if family in _PLACES and spec.positions not in _PLACES[family]:
        yield f"a {family} has positions {', '.join(_PLACES[family])}, not {spec.positions}"
    if family == "transformer" and spec.pooling == "attention":
        yield "a transformer pools by mean, cls or last, not by attention"
    if family == "vit":
        yield from _vit_complaints(spec)
    if family == "wave" and spec.pooling != "mean":
        yield f"a wave pools by mean, not by {spec.pooling}"
    if family == "wave" and spec.positions == "convolution" and spec.width % spec.position_groups:
        yield f"width {spec.width} must be divisible by position_groups ({spec.position_groups})"
    if spec.patch_stride > spec.patch_size:
        yield f"patch_stride {spec.patch_stride} would skip pixels of patches of {spec.patch_size}"
    if spec.first_norm and (spec.norm == "post" or not spec.embedding_norm):
        yield "first_norm is for norm pre with embedding_norm: without one the first layer has its norm anyway"
    shown = spec.image
    if spec.projection == "text" and shown is not None and (shown.family, shown.width) != ("vit", spec.width):
        yield f"projection text takes a picture's vector as it is: image must be a vit of the same width, {spec.width}"
    yield from _attention_complaints(spec)
    yield from _tower_complaints(spec)


def _vit_complaints(spec: EncoderSpec) -> Iterator[str]:
    if spec.positions == "sincos" and spec.width % 4:
        yield f"sincos positions need a width divisible by 4, not {spec.width}"
    if spec.pooling == "last":
        yield "a vit pools by mean, cls or attention, not by last"
    if spec.pooling == "cls" and not spec.class_tokens:
        yield "pooling cls needs class_tokens"


def _attention_complaints(spec: EncoderSpec) -> Iterator[str]:
    if spec.key_value_heads and spec.heads % spec.key_value_heads:
        yield f"{spec.heads} heads cannot share {spec.key_value_heads} key_value_heads"
    if spec.window % 2 and spec.attention == "full":
        yield f"window {spec.window} must be even: half of it lies on either side"
    if spec.global_every and not spec.window:
        yield "global_every needs a window: without one every layer is global"
    if spec.local_rotary_base and not (spec.window and spec.positions == "rotary"):
        yield "local_rotary_base needs a window and rotary positions"
    if 0 < spec.local_rotary_base < 100:
        yield f"local_rotary_base {spec.local_rotary_base} must be 0 or at least 100"


def _tower_complaints(spec: EncoderSpec) -> Iterator[str]:
    for side, tower in (("image", spec.image), ("text", spec.text)):
        if spec.family != "dual" and tower is not None:
            yield f"{side} is for dual, not for a {spec.family}"
        elif spec.family == "dual" and tower is None:
            yield f"a dual needs {side}, the shape of that tower"
        elif tower is not None and tower.family not in MODALITIES[side].families:
            yield f"{side} is of family {' or '.join(MODALITIES[side].families)}, not {tower.family}"


def _text(size: str, width: int, depth: int, heads: int) -> EncoderSpec:
    return EncoderSpec(name=f"text-{size}", family="transformer", width=width, depth=depth, heads=heads)


def _gpt(size: str, width: int, depth: int, heads: int) -> EncoderSpec:
    """GPT-2's shape, with the exact GELU, which a CPU computes in half the time of GPT-2's approximation."""
    return EncoderSpec(
        name=f"text-gpt-{size}", family="transformer", width=width, depth=depth, heads=heads, attention="causal",
        positions="learned", embedding_norm=False,
    )  # fmt: skip


def _bart(size: str, width: int, depth: int, heads: int) -> EncoderSpec:
    """BART's shape, of its encoder and its decoder alike; those of `base` have six layers each."""
    return EncoderSpec(
        name=f"text-bart-{size}", family="transformer", width=width, depth=depth, heads=heads, norm="post",
        positions="learned",
    )  # fmt: skip


def _protein(size: str, width: int, depth: int, heads: int) -> EncoderSpec:
    return EncoderSpec(name=f"protein-{size}", family="transformer", width=width, depth=depth, heads=heads)


def _vit(size: str, patch: int, width: int, depth: int) -> EncoderSpec:
    """Heads of 64 channels, as in the paper; positions and the epsilon as in MAE."""
    return EncoderSpec(
        name=f"vit-{size}", family="vit", width=width, depth=depth, heads=width // 64, patch_size=patch,
        class_tokens=1, positions="sincos", embedding_norm=False, norm_epsilon=1e-6,
    )  # fmt: skip


def named_backbone(value: Any) -> Any:
    """A backbone name becomes its row; anything else passes on to validation."""
    if isinstance(value, str):
        if value not in BACKBONES:
            raise ValueError(f"unknown backbone {value!r}; known: {', '.join(BACKBONES)}")
        return BACKBONES[value]
    return value


def patch_grid(spec: EncoderSpec, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of patches of a picture of that many pixels.

    Raises:
        SpecError: `encoder_does_not_fit`, patches side by side do not fill it, or it is smaller than one.
    """
    size, step = spec.patch_size, spec.patch_stride or spec.patch_size
    if min(height, width) < size or (step == size and (height % size or width % size)):
        text = f"pictures of {height} x {width} are not made of patches of {size} x {size}"
        raise SpecError("encoder_does_not_fit", text, "backbone.patch_size")
    return (height - size) // step + 1, (width - size) // step + 1


_ROWS = (
    # One wide layer: in minutes on a CPU, a large vocabulary learns more about topics than depth does.
    EncoderSpec(name="text-shallow", family="transformer", width=256, depth=1, heads=4, mlp_ratio=2.0),
    _text("tiny", 128, 2, 2),
    _text("mini", 256, 2, 4),
    _text("small", 256, 4, 4),
    _text("base", 768, 12, 12),
    _text("large", 1024, 24, 16),
    # For next-token prediction; `base` is GPT-2's smallest.
    _gpt("tiny", 128, 2, 2),
    _gpt("small", 256, 4, 4),
    _gpt("base", 768, 12, 12),
    # For denoising, with a decoder as deep again; `base` is BART's smaller one.
    _bart("tiny", 128, 2, 2),
    _bart("small", 256, 4, 4),
    _bart("base", 768, 6, 12),
    _protein("tiny", 128, 4, 4),
    # From here on the sizes of ESM-2: 8M, 35M and 150M parameters.
    _protein("small", 320, 6, 20),
    _protein("base", 480, 12, 20),
    _protein("large", 640, 30, 20),
    EncoderSpec(name="image-convnet-tiny", family="convnet", width=32, depth=3),
    EncoderSpec(name="image-convnet", family="convnet", width=64, depth=3, stem="medium"),
    EncoderSpec(name="image-resnet18", family="resnet", width=64, depth=18),
    EncoderSpec(name="image-resnet50", family="resnet", width=64, depth=50),
    # For pictures of 32 pixels, of 64 to 96, and from there on the paper's sizes; spectrograms too.
    _vit("tiny", 4, 192, 6),
    _vit("small", 8, 384, 12),
    _vit("base", 16, 768, 12),
    _vit("large", 16, 1024, 24),
    # Spectrograms are larger than small pictures and smoother: a stem of stride 4, and a stage more.
    EncoderSpec(name="audio-convnet", family="convnet", width=32, depth=4, stem="large"),
    # For speech in minutes on a CPU: a frame is 20 ms at 8 kHz; then the two models of wav2vec 2.0.
    EncoderSpec(
        name="audio-wave-tiny", family="wave", width=192, depth=4, heads=3, positions="convolution", position_kernel=32,
        stem="medium", stem_width=128, embedding_norm=False,
    ),
    EncoderSpec(
        name="audio-wave-base", family="wave", width=768, depth=12, heads=12, positions="convolution", stem="large",
        norm="post",
    ),
    EncoderSpec(
        name="audio-wave-large", family="wave", width=1024, depth=24, heads=16, positions="convolution", stem="large",
        stem_norm="layer", stem_bias=True, embedding_norm=False,
    ),
)  # fmt: skip
BACKBONES: dict[str, EncoderSpec] = {row.name: row for row in _ROWS}
for _size, _image, _words, _width in (
    ("tiny", "image-convnet", "text-tiny", 128),
    ("small", "image-convnet", "text-small", 256),
    ("base", "image-resnet18", "text-small", 512),
    ("large", "image-resnet50", "text-base", 512),
):
    BACKBONES[f"pair-{_size}"] = EncoderSpec(
        name=f"pair-{_size}", family="dual", width=_width, depth=1, image=BACKBONES[_image], text=BACKBONES[_words]
    )
_HAS_TOKENS = {"transformer": True, "vit": False, "wave": False, "convnet": False, "resnet": False, "dual": False}
# Which modalities an encoder family reads, and whether it has tokens of a text (an objective may need them).
FAMILIES: dict[str, tuple[tuple[str, ...], bool]] = {
    family: (tuple(name for name, one in MODALITIES.items() if family in one.families), has_tokens)
    for family, has_tokens in _HAS_TOKENS.items()
}
