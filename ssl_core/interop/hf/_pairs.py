"""What families of two towers share: settings of both sides, the text tower, rows within each tower. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop.base import Family, Public, Row, Shape, inexpressible, layered, unsupported
from ssl_core.interop.hf._pictures import ACTIVATIONS, THEIR_ACTIVATION, hidden_size, layer_rows, norm_rows
from ssl_core.interop.hf._text import special_ids, text_shape
from ssl_core.interop.hf._trunk import same_again
from ssl_core.interop.hf.clip_vision_model import LAYER
from ssl_core.modalities.image_text import ImageTextModality

BUFFERS = r"(text|vision)_model\.embeddings\.position_ids"


def side(public: Public, name: str) -> Public:
    """One tower's own config, `text` or `vision`. Raises SpecError `unsupported_config`."""
    told: dict[str, Any] = {}
    for key in (f"{name}_config", f"{name}_config_dict"):  # files of old have both, and the second one holds
        value = public.config.get(key) or {}
        if not isinstance(value, Mapping):
            raise unsupported(key, value, "an object")
        told |= value
    return Public(told, public.specials if name == "text" else {}, public.extras)


def text_tower(public: Public, usual: Mapping[str, Any], **fields: Any) -> EncoderSpec:
    """A pre-norm trunk with learned positions; a text's vector is that of its last token.

    Args:
        public: its own config.
        usual: what their config means where it is silent.
        fields: further ones of ours.
    """
    width = public.whole("hidden_size", usual["hidden_size"])
    return EncoderSpec(
        name="custom", family="transformer", width=width, embedding_norm=False, positions="learned", pooling="last",
        depth=public.whole("num_hidden_layers", 12), heads=public.whole("num_attention_heads", usual["heads"]),
        mlp_ratio=public.whole("intermediate_size", usual["intermediate_size"]) / width,
        max_positions=public.whole("max_position_embeddings", usual["max_position_embeddings"]),
        mlp=public.one_of("hidden_act", ACTIVATIONS, usual["hidden_act"]),
        norm_epsilon=public.number("layer_norm_eps", usual["layer_norm_eps"]), **fields,
    )  # fmt: skip


def pair_shape(image: Shape, text: Shape, backbone: Mapping[str, Any], reads: Mapping[str, Any]) -> Shape:
    """The shape of both.

    Args:
        image, text: of each tower.
        backbone: what a dual has beside its towers.
        reads: how texts are read, as fields of the modality.
    """
    spec = EncoderSpec.model_validate(
        {"name": "custom", "family": "dual", "depth": 1, "image": image.backbone, "text": text.backbone, **backbone}
    )
    words, pictures = text.modality.model_dump(), image.modality.model_dump()
    settings = {name: words[name] for name in ("max_length", "vocab_size")}
    settings |= {name: pictures[name] for name in ("size", "channels")}
    facts = {"image": dict(image.facts), "text": dict(text.facts)}
    return Shape(spec, ImageTextModality.model_validate({**settings, **reads}), facts)


def text_side(public: Public, backbone: EncoderSpec, entries: int) -> Shape:
    """The shape of a text tower, with a table of so many entries where its config is silent."""
    return text_shape(public, backbone, public.whole("vocab_size", entries))


def towers(shape: Shape, name: str) -> tuple[Shape, Shape, ImageTextModality]:
    """Both sides of our shape, and its modality. Raises SpecError `export_unsupported` where texts are not framed."""
    spec, modality = shape.backbone, shape.modality
    assert spec.image is not None and spec.text is not None  # the spec's own validation
    if not isinstance(modality, ImageTextModality) or not modality.special_tokens:
        raise inexpressible(name, "its texts stand between special entries: modality.special_tokens")
    pictures, words = modality.sides()
    image = Shape(spec.image, pictures, shape.facts["image"])
    return image, Shape(spec.text, words, shape.facts["text"]), modality


def vision_config(image: Shape, family: Family, name: str) -> dict[str, Any]:
    """Of our tower, by the family of theirs. Raises SpecError `export_unsupported`."""
    config = family.write(image)
    if config is None:
        raise inexpressible(name, f"its pictures go through a {family.model_class}")
    return config


def text_config(
    text: Shape, name: str, read: Callable[[Public], EncoderSpec], told: Mapping[str, Any]
) -> dict[str, Any]:
    """Of our tower.

    Args:
        text: ours.
        name: of the family, for messages.
        read: their config to our tower.
        told: what this family's config says beside.

    Raises:
        SpecError: `export_unsupported`, it is not their tower.
    """
    spec = text.backbone
    config: dict[str, Any] = {
        "hidden_size": spec.width, "num_hidden_layers": spec.depth, "num_attention_heads": spec.heads,
        "intermediate_size": hidden_size(spec), "max_position_embeddings": spec.max_positions,
        "hidden_act": THEIR_ACTIVATION.get(spec.mlp), "layer_norm_eps": spec.norm_epsilon,
        "vocab_size": text.facts["vocab_size"], **special_ids(text.facts), **told,
    }  # fmt: skip
    found = same_again(lambda public: Shape(read(public), text.modality, {}), config, text)
    if found is None or spec.pooling != "last":
        why = "its texts go through a pre-norm trunk with learned positions, and the last token is their vector"
        raise inexpressible(name, why)
    return found


def tower_rows(text: EncoderSpec, image: EncoderSpec, vision: Family) -> list[Row]:
    """Every tensor of both towers."""
    words = [
        Row("token.weight", ("embeddings.token_embedding.weight",)),
        Row("position.weight", ("embeddings.position_embedding.weight",)),
        *layered(text.depth, layer_rows(text, LAYER), "encoder.layers"),
        *norm_rows("final_norm", "final_layer_norm"),
    ]
    return [*_within(words, "text.", "text_model."), *_within(vision.rows(image), "image.", "vision_model.")]


def _within(rows: list[Row], ours: str, theirs: str) -> list[Row]:
    return [
        replace(row, ours=f"{ours}{row.ours}", theirs=tuple(f"{theirs}{name}" for name in row.theirs)) for row in rows
    ]
