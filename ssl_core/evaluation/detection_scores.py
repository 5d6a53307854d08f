"""COCO's average precision of detections, by pycocotools, and pictures of what was found. Needs torch."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ssl_core.batch import Batch
    from ssl_core.evaluation.samples import Show

_SHOWN_SCORE = 0.3


def average_precisions(outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float]:
    """`ap`, `ap50`, `ap75`: means over the classes that occur; 0 where no object is known.

    Args:
        outputs: `boxes` (N, K, 4) corners as shares, `scores` and `kinds` (N, K); -1 and NaN behind them.
        truth: `boxes` (N, L, 4), `kinds` (N, L), `sizes` (N, 2).
    """
    precision = _precisions(outputs, truth)
    if precision is None:
        return {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
    return {name: _mean(part) or 0.0 for name, part in _parts(precision).items()}


def each_class(
    outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor], classes: list[str]
) -> list[dict[str, Any]]:
    """`class`, `objects` and the three precisions of each class, null where it has no object. Arguments as before."""
    counts = torch.bincount(truth["kinds"][truth["kinds"] >= 0], minlength=len(classes)).tolist()
    precision = _precisions(outputs, truth)
    present = [at for at, count in enumerate(counts) if count]
    rows: list[dict[str, Any]] = []
    for at, name in enumerate(classes):
        scores: dict[str, float | None] = dict.fromkeys(("ap", "ap50", "ap75"))
        if precision is not None and at in present:
            place = present.index(at)
            scores = {key: _mean(part) for key, part in _parts(precision[:, :, place : place + 1]).items()}
        rows.append({"class": name, "objects": counts[at], **scores})
    return rows


def _parts(precision: Any) -> dict[str, Any]:
    return {"ap": precision, "ap50": precision[0], "ap75": precision[5]}


def _precisions(outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Any:
    """(overlaps, recalls, classes that occur), -1 where nothing counts; None without any object."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sizes = truth["sizes"].double().repeat(1, 2)[:, None]
    known = _listed(truth["boxes"].double() * sizes, truth["kinds"])
    found = _listed(outputs["boxes"].double() * sizes, outputs["kinds"], outputs["scores"])
    if not known:
        return None
    classes = sorted({each["category_id"] for each in known})
    pictures = [{"id": at + 1} for at in range(len(truth["kinds"]))]
    told = {"images": pictures, "categories": [{"id": at} for at in classes]}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its table
        sides = []
        for listed in (known, found):
            side = COCO()
            side.dataset = {
                **told, "annotations": [{"id": at + 1, "iscrowd": 0, **each} for at, each in enumerate(listed)]
            }  # fmt: skip
            side.createIndex()
            sides.append(side)
        scorer = COCOeval(*sides, "bbox")
        scorer.evaluate()
        scorer.accumulate()
    # (overlaps, recalls, classes, areas, most detections); all areas, 100 detections.
    return scorer.eval["precision"][:, :, :, 0, -1]


def _mean(precision: Any) -> float | None:
    real = precision[precision > -1]
    return float(np.mean(real)) if real.size else None


def _listed(boxes: Tensor, kinds: Tensor, scores: Tensor | None = None) -> list[dict[str, Any]]:
    """As COCO has them, pictures and classes from 1."""
    found = []
    for picture, place in (kinds >= 0).nonzero().tolist():
        left, top, right, bottom = boxes[picture, place].tolist()
        one: dict[str, Any] = {
            "image_id": picture + 1, "category_id": int(kinds[picture, place]) + 1,
            "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
        }  # fmt: skip
        if scores is not None:
            one["score"] = float(scores[picture, place])
        found.append(one)
    return found


def show_pictures(outputs: Mapping[str, Tensor], batch: Batch, classes: list[str], show: Show) -> None:
    """The pictures of a batch: what is true in green, what was found with at least 0.3 in red, with class and score."""
    from PIL import Image, ImageDraw

    views = batch.views[0]
    assert isinstance(views, Tensor)
    shades = views.float().cpu()
    low, high = shades.amin(dim=(1, 2, 3), keepdim=True), shades.amax(dim=(1, 2, 3), keepdim=True)
    pixels = ((shades - low) / (high - low).clamp_min(1e-6) * 255).byte().permute(0, 2, 3, 1).numpy()
    for row in range(len(pixels)):
        picture = Image.fromarray(pixels[row].repeat(3, 2) if pixels.shape[3] == 1 else pixels[row])
        draw, side = ImageDraw.Draw(picture), picture.width
        for box, kind in zip(batch.targets["boxes"][row].tolist(), batch.targets["kinds"][row].tolist(), strict=True):
            if kind >= 0:
                draw.rectangle([each * side for each in box], outline=(0, 170, 60))
        told = (outputs[name][row].tolist() for name in ("boxes", "kinds", "scores"))
        for box, kind, score in zip(*told, strict=True):
            if kind >= 0 and score >= _SHOWN_SCORE:
                corners = [each * side for each in box]
                draw.rectangle(corners, outline=(220, 40, 40))
                draw.text((corners[0] + 2, corners[1] + 1), f"{classes[kind]} {score:.2f}", fill=(220, 40, 40))
        show.image(f"boxes_{row + 1}", picture, "Objects: green as labelled, red as found (scores of 0.3 and more)")
