"""What families of text share: settings and facts from a config and a tokenizer. Imports without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssl_core.interop.base import Public, Shape
from ssl_core.modalities.text import TextModality

if TYPE_CHECKING:
    from ssl_core.backbones import EncoderSpec

_READ = 1024
"""Tokens read of a document at most: longer rows cost memory that few who import a model expect."""


def text_shape(public: Public, backbone: EncoderSpec, vocabulary: int) -> Shape:
    """The shape of a text model whose special entries are its tokenizer's own, put around each document."""
    length = min(backbone.max_positions, _READ)
    entries = max(512, min(131_072, vocabulary))
    modality = TextModality(
        max_length=length, vocab_size=entries, special_tokens=True, span_min=min(32, length), span_max=min(64, length)
    )
    facts: dict[str, Any] = {"vocab_size": vocabulary, "max_length": length, **public.specials}
    return Shape(backbone, modality, facts)


def special_ids(facts: Any) -> dict[str, int]:
    """The ids that a public config names, as far as the tokenizer has them."""
    theirs = {"pad_id": "pad_token_id", "cls_id": "bos_token_id", "sep_id": "eos_token_id"}
    return {name: int(facts[ours]) for ours, name in theirs.items() if ours in facts}
