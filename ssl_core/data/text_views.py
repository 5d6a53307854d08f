"""Views of text and of other sequences of tokens, batched on the training device. Needs torch.

B samples, T token slots of the view, L of what was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.batch import Tokens
from ssl_core.data import captions, tokenizer
from ssl_core.errors import DataError
from ssl_core.rng import uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

# Numbers of the random streams; a pair of spans shares the first and differs in the second.
_CUT, _SPAN = 101, 102


def packed(raw: Mapping[str, Tensor]) -> Tokens:
    """Rows as they lie: (B, T), several documents in each."""
    return Tokens(raw["ids"].long(), raw["segments"], raw["positions"], raw["word_starts"])


def plain(raw: Mapping[str, Tensor], max_length: int, pad: int = tokenizer.PAD) -> Tokens:
    """The first `max_length` tokens of each document, (B, min(L, max_length))."""
    ids, starts = raw["ids"][:, :max_length], raw["word_starts"][:, :max_length]
    return _single(ids.long(), raw["lengths"].clamp(max=max_length), starts, pad)


def span(
    raw: Mapping[str, Tensor], seeds: Tensor, index: int, bounds: tuple[int, int], pad: int = tokenizer.PAD
) -> Tokens:
    """A random stretch of each document, (B, T), T at most min(L, span_max).

    The document is cut at a random place of its middle half; views of even and odd `index` lie on different sides of
    it, so the two views of a pair share no token. The length is uniform in `bounds`, less where the side is shorter.
    """
    shortest, longest = bounds
    lengths = raw["lengths"]
    cut_at, which = uniform(seeds, 2, _CUT).unbind(-1)
    size_at, start_at = uniform(seeds, 2, _SPAN + index).unbind(-1)
    cut = (lengths * (0.25 + 0.5 * cut_at)).long().clamp(min=1)
    # A document of one token has one side only.
    right = ((which < 0.5) ^ (index % 2 == 1)) & (lengths > 1)
    side = torch.where(right, lengths - cut, cut)
    wanted = shortest + (size_at * (longest - shortest + 1)).long()
    size = torch.minimum(wanted, side)
    start = torch.where(right, cut, 0) + (start_at * (side - size + 1)).long()
    most = min(raw["ids"].shape[1], longest)
    if size.device.type == "cpu":
        # Asking for the longest span is free here; a GPU would have to be waited for.
        most = int(size.max())
    slots = torch.arange(most, device=seeds.device)
    at = (start[:, None] + slots).clamp(max=raw["ids"].shape[1] - 1)
    return _single(raw["ids"].gather(1, at).long(), size, raw["word_starts"].gather(1, at), pad)


def _single(ids: Tensor, lengths: Tensor, starts: Tensor, pad: int) -> Tokens:
    """One document a row: everything past its length becomes padding."""
    slots = torch.arange(ids.shape[1], device=ids.device)
    real = slots < lengths[:, None]
    segments = torch.where(real, 0, -1).to(torch.int32)
    positions = torch.where(real, slots, 0)
    return Tokens(torch.where(real, ids, pad), segments, positions, starts & real)


@lru_cache(maxsize=16)
def _codec(path: Path, changed: int) -> tuple[Tokenizer, NDArray[np.bool_]]:
    """A model's tokenizer, kept between requests; `changed` is the file's time, so a new file is a new entry."""
    codec = tokenizer.load(path)
    return codec, tokenizer.word_starts(codec)


def collate(
    items: list[Any], folder: Path, max_length: int, framed: bool = False, frame: captions.Frame | None = None
) -> dict[str, Tensor]:
    """Documents as `TextSource.read` gives them, from strings or lists of token ids: `ids`, `word_starts`, `lengths`.

    With `frame` texts are those of pairs, and `framed` is not read.

    Raises:
        DataError: `invalid_input`, an item is neither, is empty, or holds an id outside the vocabulary; `param` is
            `items.<number>`.
    """
    path = folder / "tokenizer.json"
    codec, starts = _codec(path, path.stat().st_mtime_ns)
    texts = [number for number, item in enumerate(items) if isinstance(item, str) and item]
    words = [items[number] for number in texts]
    found = tokenizer.encode(codec, words, framed) if frame is None else captions.encode(codec, words, frame)
    encoded = dict(zip(texts, found, strict=True))
    documents = [
        encoded[number] if number in encoded else _checked(item, number, len(starts))
        for number, item in enumerate(items)
    ]
    if frame is not None:
        documents = captions.filled(codec, documents, frame)
    return padded(documents, starts, max_length, tokenizer.PAD)


def padded(documents: list[list[int]], starts: NDArray[np.bool_], max_length: int, pad: int) -> dict[str, Tensor]:
    """Documents as a source reads them: `ids` and `word_starts` (B, L), `lengths` (B,), each cut at `max_length`."""
    lengths = np.array([min(len(ids), max_length) for ids in documents], dtype=np.int64)
    ids = np.full((len(documents), int(lengths.max(initial=1))), pad, dtype=np.int32)
    for row, (document, length) in enumerate(zip(documents, lengths, strict=True)):
        ids[row, :length] = document[:length]
    arrays = {"ids": ids, "word_starts": starts[ids], "lengths": lengths}
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def _checked(item: Any, number: int, vocabulary: int) -> list[int]:
    param = f"items.{number}"
    if not isinstance(item, list) or not item:
        raise DataError("invalid_input", "an item is a non-empty string or a non-empty list of token ids", param)
    if any(type(token) is not int or not 0 <= token < vocabulary for token in item):
        words = f"token ids are whole numbers from 0 to {vocabulary - 1}, of this model's own tokenizer; else send text"
        raise DataError("invalid_input", words, param)
    return item
