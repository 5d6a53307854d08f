"""Prepared protein chains: the fixed alphabet's ids, as `ssl_core.data.token_shards` holds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ssl_core.data import residues, rows, token_shards

_ROWS = 1024


def prepare(max_length: int, dataset: Path, out: Path, progress: Callable[[int, int], None]) -> None:
    """Write `tokenizer.json` and the files of `token_shards.write` to `out`.

    Raises:
        DataError: `empty_dataset`.
    """
    import numpy as np

    rows.profile(dataset)  # a folder that is none is named before anything is made
    out.mkdir(parents=True, exist_ok=True)
    residues.tokenizer().save(str(out / "tokenizer.json"))
    groups = (
        [residues.encode(chain) for chain in batch["protein"]] for batch in rows.batches(dataset, ["protein"], _ROWS)
    )
    every = np.ones(len(residues.TOKENS), dtype=np.bool_)  # a residue is a word
    token_shards.write(
        dataset, out, groups, token_shards.Vocabulary("protein", residues.facts(max_length), every), progress
    )
