"""How the text tower of a public pair reads a text: between special entries, cut in front of the last of them, and
filled up where it reads the filling too (SigLIP, Zhai et al. 2023, https://arxiv.org/abs/2303.15343)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssl_core.data import tokenizer
from ssl_core.errors import SpecError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Frame:
    """What stands around a text.

    Attributes:
        length: tokens that are read of it.
        special: the tokenizer's own special entries, of which a text that is too long keeps the last ones.
        filler: an entry with which a shorter text is filled up to `length`; empty = none.
    """

    length: int
    special: bool = False
    filler: str = ""


def framed(made: Tokenizer) -> None:
    """Put the platform's [CLS] and [SEP] around every text that a tokenizer made by it encodes."""
    from tokenizers import processors

    begin, end = (tokenizer.SPECIALS[at] for at in (tokenizer.CLS, tokenizer.SEP))
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, tokenizer.CLS), (end, tokenizer.SEP)]
    )


def encode(codec: Tokenizer, texts: list[str], frame: Frame) -> list[list[int]]:
    """Token ids of each text, as `tokenizer.encode`. Raises SpecError `invalid_tokenizer` as `filled`."""
    known = tokenizer.specials(codec)
    unknown, special = known.get("unk_id", known["pad_id"]), frame.special
    encoded = codec.encode_batch_fast(texts, add_special_tokens=special)
    return filled(
        codec,
        [_cut(each.ids or [unknown], each.special_tokens_mask, frame) if special else each.ids or [unknown]
         for each in encoded],
        frame,
    )  # fmt: skip


def filled(codec: Tokenizer, documents: list[list[int]], frame: Frame) -> list[list[int]]:
    """Each with fillers behind it, up to the frame's length.

    Raises:
        SpecError: `invalid_tokenizer`, the filler is no entry of the tokenizer.
    """
    if not frame.filler:
        return documents
    filler = codec.token_to_id(frame.filler)
    if filler is None:
        text = f"the tokenizer has no entry {frame.filler!r} to fill texts with"
        raise SpecError("invalid_tokenizer", text, "modality.filler")
    return [ids + [filler] * (frame.length - len(ids)) for ids in documents]


def _cut(ids: list[int], special: list[int], frame: Frame) -> list[int]:
    """The first tokens, and the special ones at the end."""
    if len(ids) <= frame.length:
        return ids
    tail = next((at for at, one in enumerate(reversed(special)) if not one), 0)
    return ids[: frame.length - tail] + ids[len(ids) - tail :]
