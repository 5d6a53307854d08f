"""The bodies that answer embeddings and predictions. Imports without torch."""

from __future__ import annotations

import array
import base64
import sys
from collections.abc import Sequence
from typing import Any


def embedding_body(model: str, raw: bytes, width: int, encoding: str, tokens: int) -> dict[str, Any]:
    """OpenAI's shape.

    Args:
        model: as the request named it.
        raw: the vectors, little-endian float32, one after the other.
        width: numbers of a vector.
        encoding: `float` or `base64`.
        tokens: that were read.
    """
    pieces = [raw[at : at + 4 * width] for at in range(0, len(raw), 4 * width)]
    encode = _base64 if encoding == "base64" else _floats
    data = [{"object": "embedding", "index": at, "embedding": encode(piece)} for at, piece in enumerate(pieces)]
    return {"object": "list", "data": data, "model": model, "usage": usage(tokens)}


def prediction_body(model: str, answers: Sequence[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """One prediction for each input."""
    data = [{"object": "prediction", "index": at, **one} for at, one in enumerate(answers)]
    return {"object": "list", "data": data, "model": model, "usage": usage(tokens)}


def usage(tokens: int) -> dict[str, int]:
    """Tokens that were read, as OpenAI tells them."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _base64(piece: bytes) -> str:
    return base64.b64encode(piece).decode()


def _floats(piece: bytes) -> list[float]:
    numbers = array.array("f", piece)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
