"""What flows through one step. Needs torch.

Shapes: B samples, T token slots in a row, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Rows of tokens; a row may hold several documents (packing), which never see each other.

    Attributes:
        ids: (B, T) int64 token ids.
        segments: (B, T) int32 number of the document inside its row, from 0; -1 marks padding.
        positions: (B, T) int64 position inside the document, from 0.
        word_starts: (B, T) bool, True where a word begins (whole-word masking); None where nobody asked.
    """

    ids: Tensor
    segments: Tensor
    positions: Tensor
    word_starts: Tensor | None = None


# Images are a float tensor (B, C, H, W), normalised.
Inputs: TypeAlias = Tokens | Tensor


@dataclass(frozen=True)
class Batch:
    """One step's samples: one `Inputs` for each name in the learner's `views`, in that order.

    Attributes:
        seeds: (B,) int64, a function of (run seed, step, sample): the only source of randomness of a view or mask,
            so a batch is the same whatever the loader, the device count or the moment of a resume.
        labels: (B,) int64 class indices; None without labels.
    """

    views: tuple[Inputs, ...]
    seeds: Tensor
    labels: Tensor | None = None
