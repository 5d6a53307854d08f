"""Detection: its losses and overlaps against formulas in float64, what places learn, suppression, scores, answers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_core import detector
from ssl_core.augment import resample, resize_matrix
from ssl_core.backbones import BACKBONES
from ssl_core.batch import Batch
from ssl_core.detection import assign, best, focal_loss, losses, overlap, suppress
from ssl_core.detection_views import Change, changed
from ssl_core.detector import Found
from ssl_core.encoders import Encoder, build_encoder
from ssl_core.errors import SpecError
from ssl_core.evaluation.detection_scores import average_precisions
from ssl_core.modalities.image import ImageModality
from ssl_core.tasks.detection import Detection


def drawn(count: int, seed: int, side: float = 32.0) -> Tensor:
    """(count, 4) boxes x1, y1, x2, y2 of an area."""
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * side
    return torch.cat([corners.amin(1), corners.amax(1) + 0.5], dim=1)


def counted(first: list[float], second: list[float]) -> tuple[float, float]:
    """Overlap and generalised overlap of two boxes, by the paper's algorithm 1, side by side."""
    wide = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    high = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    union = sum(areas) - wide * high
    hull = (max(first[2], second[2]) - min(first[0], second[0])) * (max(first[3], second[3]) - min(first[1], second[1]))
    return wide * high / union, wide * high / union - (hull - union) / hull


def test_overlaps_are_those_of_the_formula() -> None:
    first, second = drawn(50, 0), drawn(50, 1)
    found = torch.stack(overlap(first, second), dim=1)
    expected = [counted(one, other) for one, other in zip(first.tolist(), second.tolist(), strict=True)]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9)


def test_the_focal_loss_and_its_gradient_are_those_of_the_formula() -> None:
    logits = torch.linspace(-6, 6, 41, dtype=torch.float64).requires_grad_()
    for truth in (0.0, 1.0):
        found = focal_loss(logits, torch.full_like(logits, truth))
        p = logits.sigmoid()
        right, share = (p, 0.25) if truth else (1 - p, 0.75)
        expected = -share * (1 - right) ** 2 * right.log()
        assert torch.allclose(found, expected, rtol=1e-9)
        gradients = [torch.autograd.grad(each.sum(), logits, retain_graph=True)[0] for each in (found, expected)]
        assert torch.allclose(*gradients, rtol=1e-8)


def grid(side: int, stride: int) -> tuple[Tensor, Tensor]:
    places = detector._grid(side // stride, side // stride, stride, torch.device("cpu")).double()
    return places, torch.full((len(places),), float(stride), dtype=torch.float64)


def test_places_learn_the_smallest_object_that_they_lie_in_near_its_middle() -> None:
    places, strides = grid(64, 8)
    boxes = torch.tensor([[[0.0, 0.0, 48.0, 48.0], [16.0, 16.0, 26.0, 26.0], [0.0, 0.0, 9.0, 9.0]]])
    found = assign(boxes.double(), torch.tensor([[0, 1, -1]]), places, strides)
    at = {tuple(place): kind for place, kind in zip(places.tolist(), found.kinds[0].tolist(), strict=True)}
    assert at[20.0, 20.0] == 1, "in both: the smaller"
    assert at[20.0, 28.0] == at[28.0, 28.0] == 0, "near the middle of the large one alone"
    assert at[4.0, 4.0] == -1, "in the large one, far from its middle; the third is no object"
    assert at[60.0, 60.0] == -1
    middle = found.middles[0][places.tolist().index([20.0, 20.0])]
    assert float(middle) == pytest.approx(4 / 6)
    assert not found.boxes[found.kinds < 0].any()


def test_each_map_learns_objects_of_its_size() -> None:
    (fine, near), (coarse, far) = grid(256, 8), grid(256, 32)
    places, strides = torch.cat([fine, coarse]), torch.cat([near, far])
    boxes = torch.tensor([[[100.0, 100, 140, 140], [0, 0, 250, 250]]]).double()
    kinds = assign(boxes, torch.tensor([[0, 1]]), places, strides).kinds[0]
    assert set(kinds[: len(fine)].tolist()) == {-1, 0}
    assert set(kinds[len(fine) :].tolist()) == {-1, 1}


def test_pictures_without_objects_teach_background_alone() -> None:
    places, strides = grid(32, 8)
    found = assign(torch.zeros(2, 0, 4).double(), torch.zeros(2, 0, dtype=torch.int64), places, strides)
    assert found.kinds.shape == (2, 16) and not (found.kinds >= 0).any()
    told = losses(told_by(places, strides, 2), found)
    assert torch.isfinite(told["loss"]) and float(told["box_loss"]) == 0 and float(told["class_loss"]) > 0


def told_by(places: Tensor, strides: Tensor, rows: int, classes: int = 2) -> Found:
    generator = torch.Generator().manual_seed(0)
    random = [torch.randn(rows, len(places), n, generator=generator, dtype=torch.float64) for n in (classes, 4, 1)]
    return Found(random[0].requires_grad_(), random[1].exp() * 8, random[2].squeeze(2), places, strides)


def test_the_whole_loss_is_its_parts_by_the_places_of_objects() -> None:
    places, strides = grid(64, 8)
    wanted = assign(drawn(6, 3, 60).view(2, 3, 4), torch.tensor([[0, 1, 0], [1, -1, -1]]), places, strides)
    found = told_by(places, strides, 2)
    told = losses(found, wanted)
    positive = wanted.kinds >= 0
    yes = torch.zeros_like(found.logits)
    yes[positive, wanted.kinds[positive]] = 1
    classes = focal_loss(found.logits, yes).sum() / positive.sum()
    sides = detector.boxes_of(found)[positive]
    general = torch.tensor(
        [counted(a, b)[1] for a, b in zip(sides.tolist(), wanted.boxes[positive].tolist(), strict=True)]
    )
    weight = wanted.middles[positive]
    boxes = ((1 - general.double()) * weight).sum() / weight.sum()
    near = torch.nn.functional.binary_cross_entropy_with_logits(found.middles[positive], weight)
    assert float(told["loss"].detach()) == pytest.approx(float((classes + boxes + near).detach()), rel=1e-6)


def test_suppression_keeps_the_surest_of_those_that_overlap_in_a_class() -> None:
    boxes, kinds = drawn(60, 5), torch.arange(60) % 3
    kept: list[int] = []
    for at in range(60):
        rivals = [other for other in kept if kinds[other] == kinds[at]]
        if all(counted(boxes[at].tolist(), boxes[other].tolist())[0] <= 0.3 for other in rivals):
            kept.append(at)
    assert suppress(boxes, kinds, 0.3).tolist() == kept


def test_answers_are_few_sure_and_inside_the_picture() -> None:
    places, strides = grid(64, 8)
    kept = best(told_by(places, strides, 3), 64, (5, 0.3, 0.5))
    real = kept.kinds >= 0
    assert kept.boxes.shape[:2] == kept.scores.shape == kept.kinds.shape and kept.kinds.shape[1] <= 5
    assert (kept.scores[real] > 0.3).all() and kept.boxes[~real].isnan().all()
    assert (kept.boxes[real] >= 0).all() and (kept.boxes[real] <= 64).all()
    for row in kept.scores:
        sure = row[~row.isnan()]
        assert (sure.diff() <= 0).all()
    nothing = best(told_by(places, strides, 2), 64, (5, 0.9999, 0.5))
    assert (nothing.kinds == -1).all()


def truth_of(boxes: Tensor, kinds: Tensor) -> dict[str, Tensor]:
    return {"boxes": boxes, "kinds": kinds, "sizes": torch.tensor([[640, 480]]).repeat(len(kinds), 1)}


def test_scores_of_perfect_answers_are_one_and_of_none_nought() -> None:
    boxes, kinds = (drawn(12, 7) / 40).view(3, 4, 4), torch.tensor([[0, 1, 0, -1]] * 3)
    exact = {"boxes": boxes, "kinds": kinds, "scores": torch.rand(3, 4)}
    assert average_precisions(exact, truth_of(boxes, kinds)) == {"ap": 1.0, "ap50": 1.0, "ap75": 1.0}
    nothing = {**exact, "kinds": torch.full_like(kinds, -1)}
    assert average_precisions(nothing, truth_of(boxes, kinds))["ap"] == 0
    assert average_precisions(exact, truth_of(boxes, torch.full_like(kinds, -1)))["ap50"] == 0


def test_ap50_is_the_area_under_the_curve_of_precision() -> None:
    # One class, four objects; the second surest answer is wrong: precision 1, 2/3, 3/4 at recall 1/4, 2/4, 3/4.
    boxes = torch.tensor([[0.0, 0, 0.2, 0.2], [0.3, 0, 0.5, 0.2], [0.6, 0, 0.8, 0.2], [0, 0.5, 0.2, 0.7]])[None]
    found = torch.cat([boxes[:, :1], boxes[:, :1] + 0.5, boxes[:, 1:3]], 1)
    outputs = {"boxes": found, "kinds": torch.zeros(1, 4).long(), "scores": torch.tensor([[0.9, 0.8, 0.7, 0.6]])}
    recalls = np.linspace(0, 1, 101)
    expected = np.where(recalls <= 0.25, 1, np.where(recalls <= 0.75, 0.75, 0)).mean()
    scores = average_precisions(outputs, truth_of(boxes, torch.zeros(1, 4).long()))
    assert scores["ap50"] == pytest.approx(expected)


def test_each_class_has_its_own_precision_and_the_mean_is_the_whole() -> None:
    boxes, kinds = (drawn(12, 7) / 40).view(3, 4, 4), torch.tensor([[0, 2, 0, -1]] * 3)
    outputs = {"boxes": boxes.clone(), "kinds": kinds, "scores": torch.rand(3, 4)}
    outputs["boxes"][:, 1] += 0.5  # the others are found where they are not
    table = Detection().by_class(outputs, truth_of(boxes, kinds), ["cat", "dog", "owl"])
    assert [(row["class"], row["objects"], row["ap50"]) for row in table] == [
        ("cat", 6, 1.0), ("dog", 0, None), ("owl", 3, 0.0)]  # fmt: skip
    assert average_precisions(outputs, truth_of(boxes, kinds))["ap50"] == 0.5
    nothing = truth_of(boxes, torch.full_like(kinds, -1))
    assert [row["ap"] for row in Detection().by_class(outputs, nothing, ["cat"])] == [None]


def test_boxes_go_along_with_their_pictures() -> None:
    side, rows = 64, 40
    boxes = torch.tensor([0.25, 0.375, 0.5, 0.75]).repeat(rows, 1, 1)
    pictures = torch.zeros(rows, 1, side, side)
    pictures[:, :, 24:48, 16:32] = 1  # what is in the box
    seeds = torch.arange(rows) * 7919
    moved, along, kinds = changed(pictures, boxes, torch.zeros(rows, 1).long(), seeds, Change(True, True, 0.6, 0.0))
    assert {-1, 0} >= set(kinds[:, 0].tolist()) and (kinds == 0).sum() > rows / 2
    for picture, box, kind in zip(moved, along[:, 0], kinds[:, 0], strict=True):
        if kind < 0:
            assert box.isnan().all()
            continue
        down, across = (picture[0] > 0.5).nonzero(as_tuple=True)
        bright = [across.min() / side, down.min() / side, (across.max() + 1) / side, (down.max() + 1) / side]
        assert torch.allclose(torch.tensor([float(each) for each in bright]), box, atol=1.6 / side)
    again = changed(pictures, boxes, torch.zeros(rows, 1).long(), seeds, Change(True, True, 0.6, 0.0))
    assert torch.equal(moved, again[0])
    assert len({tuple(box) for box in along[kinds >= 0].tolist()}) > rows / 3


def test_a_picture_that_nothing_may_happen_to_stays_as_it_is() -> None:
    pictures, boxes = torch.rand(3, 3, 16, 16), torch.rand(3, 2, 4)
    kinds = torch.tensor([[0, -1]] * 3)
    moved, _, same = changed(pictures, boxes, kinds, torch.arange(3), Change(False, False, 1.0, 0.0))
    assert torch.allclose(moved, pictures, atol=1e-5) and torch.equal(same[:, 1], kinds[:, 1])
    whole = resize_matrix(torch.zeros(1), torch.ones(1), 16, 16)
    assert torch.allclose(resample(pictures[:1], whole, whole), pictures[:1], atol=1e-5)


def net(name: str = "image-convnet", side: int = 64) -> Encoder:
    return build_encoder(BACKBONES[name], {"channels": 3, "size": side})


@pytest.mark.parametrize(("name", "strides"), [("image-convnet", [8, 16, 32]), ("image-resnet18", [8, 16, 32])])
def test_a_pyramid_stands_on_the_maps_of_conv_nets(name: str, strides: list[int]) -> None:
    encoder = net(name).eval()
    nets = Detection(size=64).build(encoder, ["a", "b"])
    head = detector.detector_of(nets)
    assert head.strides == strides
    with torch.no_grad():
        found = head(detector.read_maps(encoder, torch.randn(2, 3, 64, 64)))
    assert found.logits.shape == (2, 64 + 16 + 4, 2) and found.reaches.min() >= 0
    assert found.logits.sigmoid().mean() < 0.05, "at the start hardly anything is an object"


@pytest.mark.parametrize(
    ("patch", "strides"), [(32, [8, 16, 32]), (16, [8, 16, 32]), (8, [8, 16, 32]), (4, [4, 8, 16])]
)
def test_a_pyramid_stands_on_the_one_map_of_a_vit(patch: int, strides: list[int]) -> None:
    spec = BACKBONES["vit-tiny"].model_copy(update={"patch_size": patch, "width": 32, "depth": 2, "heads": 2})
    encoder = build_encoder(spec, {"channels": 3, "size": 64}).eval()
    nets = Detection(size=64).build(encoder, ["a", "b"])
    head = detector.detector_of(nets)
    assert head.strides == strides
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (level,) = encoder.maps(pictures)
        assert torch.allclose(level.mean(dim=(2, 3)), encoder(pictures), atol=1e-5)
        found = head(detector.read_maps(encoder, pictures))
    assert found.logits.shape == (2, sum((64 // stride) ** 2 for stride in strides), 2)
    # Row by row, as the places are numbered.
    beside = encoder.encode(pictures).detach()
    assert torch.allclose(level[:, :, 0, 1], beside[:, 1], atol=1e-5)
    assert torch.allclose(level[:, :, 1, 0], beside[:, 64 // patch], atol=1e-5)


def test_patches_that_do_not_cover_the_picture_are_refused() -> None:
    spec = BACKBONES["vit-tiny"].model_copy(update={"patch_size": 14})
    with pytest.raises(SpecError, match="no multiple of the backbone's patches of 14 pixels"):
        Detection(size=64).check(spec)


@pytest.mark.parametrize("name", ["image-convnet", "image-resnet18"])
def test_the_coarsest_map_is_what_the_encoder_gives(name: str) -> None:
    encoder, pictures = net(name).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = encoder.maps(pictures)
        assert torch.allclose(maps[-1].mean(dim=(2, 3)), encoder(pictures), atol=1e-5)
    widths = [one.shape[-1] for one in maps]
    assert all(one == 2 * other for one, other in pairwise(widths))


def test_it_reads_whole_pictures_whatever_the_encoder_did() -> None:
    task, pretrained = Detection(size=128), ImageModality(size=32, flip=False)
    found = task.reading(pretrained)
    assert isinstance(found, ImageModality)
    assert (found.size, found.fit, found.flip) == (128, "stretch", False)
    small = Detection(size=16).reading(ImageModality(size=64, local_size=48))
    assert isinstance(small, ImageModality) and small.local_size <= small.size


def test_encoders_without_maps_are_refused_with_the_field() -> None:
    with pytest.raises(SpecError, match="feature maps of a convnet or a resnet or a vit") as caught:
        Detection().check(BACKBONES["text-tiny"])
    assert (caught.value.code, caught.value.param) == ("backbone_mismatch", "backbone")


def test_an_answer_is_in_pixels_of_the_picture_that_was_sent() -> None:
    outputs: dict[str, Any] = {
        "boxes": torch.tensor([[[0.25, 0.5, 0.5, 1.0], [float("nan")] * 4]]), "kinds": torch.tensor([[1, -1]]),
        "scores": torch.tensor([[0.5, float("nan")]]), "sizes": torch.tensor([[640, 480]]),
    }  # fmt: skip
    told = Detection().answer(outputs, 0, ["cat", "owl"])
    assert told == {"boxes": [{"label": "owl", "score": 0.5, "box": [160.0, 240.0, 160.0, 240.0]}]}


def test_bright_squares_are_found_after_a_few_steps() -> None:
    torch.manual_seed(0)
    task = Detection(size=64, head_width=32)
    generator = torch.Generator().manual_seed(1)
    corners = torch.randint(0, 40, (32, 2), generator=generator)
    boxes, pictures = torch.zeros(32, 1, 4), torch.randn(32, 3, 64, 64, generator=generator) * 0.2
    for row, (x, y) in enumerate(corners.tolist()):
        pictures[row, :, y : y + 20, x : x + 20] += 3
        boxes[row, 0] = torch.tensor([x, y, x + 20, y + 20]) / 64
    kinds = torch.zeros(32, 1).long()
    sizes = torch.full((32, 2), 64)
    targets = {"boxes": boxes, "kinds": kinds, "sizes": sizes}
    nets = task.build(net(), ["square"]).train()
    optimizer = torch.optim.AdamW(nets.parameters(), lr=2e-3)
    for step in range(25):
        loss = task.loss(nets, Batch((pictures,), torch.arange(32) + 100 * step, None, targets))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        outputs = task.predict(nets.eval(), Batch((pictures,), torch.arange(32), None, targets))
    assert task.metrics(outputs, targets)["ap50"] > 0.8
