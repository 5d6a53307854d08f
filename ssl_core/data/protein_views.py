"""Chains from callers of the embedding endpoint, as prepared ones are read. Needs torch; views: `text_views`."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ssl_core.data import residues, text_views
from ssl_core.errors import DataError


def collate(items: list[Any], max_length: int) -> dict[str, Tensor]:
    """`ids` and `word_starts` (B, L), `lengths` (B,), from strings of residues.

    Raises:
        DataError: `invalid_input`, an item is not a string; or as `residues.clean`; `param` is `items.<number>`.
    """
    chains = [residues.encode(_cleaned(item, f"items.{number}")).tolist() for number, item in enumerate(items)]
    every = np.ones(len(residues.TOKENS), dtype=np.bool_)
    return text_views.padded(chains, every, max_length, residues.PAD)


def _cleaned(item: Any, param: str) -> bytes:
    if not isinstance(item, str):
        raise DataError("invalid_input", "a protein item is a string of residues", param)
    try:
        return residues.clean(item)
    except DataError as error:
        raise DataError(error.code, error.message, param) from error
