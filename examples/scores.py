"""What a test set says of a model's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from groundwork.client import Json

Score = Callable[[Sequence[Json], Sequence[Any]], float]


def accuracy(answers: Sequence[Json], truths: Sequence[Any]) -> float:
    """Share of the rows whose predicted label is right."""
    right = sum(answer["label"] == label for answer, label in zip(answers, truths, strict=True))
    return right / len(truths)


def tag_accuracy(answers: Sequence[Json], truths: Sequence[Any]) -> float:
    """Share of the tags that are right, Q3 where there are three classes.

    Args:
        answers: of a tagging model. What it has not read, behind its longest row, is not right.
        truths: `{"labels", "mask"}`, strings of one letter for each residue; a mask of 0 leaves a residue out.
    """
    right = known = 0
    for answer, truth in zip(answers, truths, strict=True):
        tags = [*answer["tags"], *[None] * (len(truth["labels"]) - len(answer["tags"]))]
        judged = [
            tag == label
            for tag, label, kept in zip(tags, truth["labels"], truth["mask"], strict=True)
            if kept == "1"
        ]
        right, known = right + sum(judged), known + len(judged)
    return right / known
