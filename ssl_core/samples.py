"""Items of a served model as they were read, and how they are put into batches. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

VALUES_PER_TOKEN = 192
"""A picture is weighed as one token for each 8 x 8 colour pixels when batches are cut."""


@dataclass(frozen=True)
class Sample:
    """One item, read: tokenized or decoded, ready to be batched with any other of the same model.

    Attributes:
        raw: what `Modality.collate` made of it; first dimension 1.
        tokens: tokens the model reads of a text; 1 for a picture.
        cost: its weight in a batch, in tokens.
    """

    raw: Mapping[str, Tensor]
    tokens: int
    cost: int


def sample_of(raw: Mapping[str, Tensor], row: int, length: int | None) -> Sample:
    """One row, cut to its own length so that the padding of its neighbours is not kept."""
    mine = {name: tensor[row : row + 1] for name, tensor in raw.items()}
    if length is None:
        values = sum(tensor.numel() for tensor in mine.values())
        return Sample(mine, int(mine["tokens"]) if "tokens" in mine else 1, 1 + values // VALUES_PER_TOKEN)
    # Cloned: a slice would keep the whole padded batch alive.
    mine = {name: tensor[:, :length].clone() if tensor.ndim > 1 else tensor for name, tensor in mine.items()}
    return Sample(mine, length, length)


def stacked_rows(rows: list[Tensor]) -> Tensor:
    """(1, L_i, ...) each -> (B, max L, ...), zeros behind the shorter ones (masked by their lengths)."""
    if rows[0].ndim < 2 or all(row.shape[1] == rows[0].shape[1] for row in rows):
        return torch.cat(rows)
    out = rows[0].new_zeros(len(rows), max(row.shape[1] for row in rows), *rows[0].shape[2:])
    for at, row in enumerate(rows):
        out[at, : row.shape[1]] = row[0]
    return out


def batches_of(samples: list[Sample], budget: int, packed: bool = False) -> list[list[int]]:
    """Sample numbers in batches of like length: padding stays under a quarter, and rows x longest under the budget.

    `packed` ones have no padding but in attention, so the longest may have twice the tokens of the shortest and some
    more, and all tokens stay under the budget.
    """
    batches: list[list[int]] = []
    shortest = tokens = 0
    for at in sorted(range(len(samples)), key=lambda at: samples[at].cost):
        cost = samples[at].cost
        slack = shortest + 32 if packed else max(4, shortest // 3)
        taken = tokens + cost if packed else cost * (len(batches[-1]) + 1 if batches else 1)
        if batches and taken <= budget and cost <= shortest + slack:
            batches[-1].append(at)
            tokens += cost
        else:
            batches.append([at])
            shortest = tokens = cost
    return batches
