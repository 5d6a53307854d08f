"""What a test set says of a model's answers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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


def contact_precision(answers: Sequence[Json], truths: Sequence[Any]) -> float:
    """Of each chain's L / 5 likeliest pairs that are 6 residues apart or more, the share that are contacts; the mean.

    Args:
        answers: of a contacts model, the likeliest first.
        truths: `{"sequence", "contacts"}`.
    """
    found = []
    for answer, truth in zip(answers, truths, strict=True):
        far = [(i, j) for i, j, _ in answer["contacts"] if j - i >= 6]
        judged = far[: max(1, len(truth["sequence"]) // 5)]
        known = {tuple(pair) for pair in truth["contacts"]}
        found.append(sum(pair in known for pair in judged) / max(1, len(judged)))
    return float(np.mean(found))


def rank_correlation(answers: Sequence[Json], truths: Sequence[Any]) -> float:
    """Spearman's, of the answers of a regression with `{"label"}`; equal numbers share their mean rank."""

    def ranks(values: list[float]) -> Any:
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[place]

    pair = ranks([answer["number"] for answer in answers]), ranks([float(truth["label"]) for truth in truths])
    return 0.0 if min(np.std(each) for each in pair) == 0 else float(np.corrcoef(*pair)[0, 1])


def bleu(answers: Sequence[Json], truths: Sequence[Any]) -> float:
    """sacreBLEU of all answers together, 0 to 100, lower-cased, with its usual tokenizer (13a).

    Args:
        answers: of a translation model.
        truths: `{"target"}`.
    """
    from sacrebleu.metrics.bleu import BLEU

    wrote, true = [answer["translation"] for answer in answers], [truth["target"] for truth in truths]
    return float(BLEU(lowercase=True).corpus_score(wrote, [true]).score)


def box_precision(answers: Sequence[Json], truths: Sequence[Any]) -> float:
    """COCO's average precision at an overlap of 0.5, the mean over classes, by pycocotools.

    Args:
        answers: of a detection model.
        truths: `{"objects": [{"label", "box": [x, y, width, height]}]}` of each picture.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    classes = sorted({each["label"] for truth in truths for each in truth["objects"]})
    known = _coco([truth["objects"] for truth in truths], classes)
    found = _coco([[each for each in answer["boxes"] if each["label"] in classes] for answer in answers], classes)
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for listed in (known, found):
            side = COCO()
            side.dataset = {
                "images": [{"id": at} for at in range(len(truths))],
                "categories": [{"id": at} for at in range(len(classes))], "annotations": listed,
            }  # fmt: skip
            side.createIndex()
            sides.append(side)
        scorer = COCOeval(*sides, "bbox")
        scorer.evaluate()
        scorer.accumulate()
    precision = scorer.eval["precision"][0, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def _coco(pictures: Sequence[Sequence[Json]], classes: list[str]) -> list[Json]:
    objects = [(at, each) for at, objects in enumerate(pictures) for each in objects]
    return [
        {"id": number, "image_id": at, "category_id": classes.index(each["label"]), "bbox": each["box"],
         "area": each["box"][2] * each["box"][3], "iscrowd": 0, "score": each.get("score", 1.0)}
        for number, (at, each) in enumerate(objects, 1)
    ]  # fmt: skip
