"""Objects in pictures: a class, a box and a score each. Imports without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ssl_core.errors import SpecError
from ssl_core.tasks.base import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.evaluation.samples import Show
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets

_FAMILIES = ("convnet", "resnet", "vit")


class Detection(Task):
    """A one-stage detector without anchors (FCOS) on a feature pyramid over the maps of a conv net, or over
    the one of a ViT.

    Pictures are squeezed to a square of `size` pixels as a whole, whatever the encoder was pretrained on; boxes are
    answered in pixels of the picture that was sent. While it trains, pictures are mirrored, cut and blown up, and
    change in brightness and contrast; boxes go along.
    """

    name: Literal["detection"] = "detection"
    size: int = Field(default=256, ge=8, le=512, multiple_of=8, description="side of the square that is looked at")
    head_width: int = Field(default=96, ge=8, le=512, multiple_of=8, description="channels of pyramid and head")
    mirror: bool = Field(default=True, description="mirror half of the pictures left to right")
    turn: bool = Field(default=False, description="mirror half of them top to bottom too: where nothing has an above")
    least_cut: float = Field(default=0.5, gt=0, le=1, description="least share of a side that is cut out; 1 = no cuts")
    colour: float = Field(default=0.2, ge=0, le=1, description="most change of brightness and contrast")
    most_boxes: int = Field(default=100, ge=1, le=1000, description="answers for a picture, at most")
    least_score: float = Field(default=0.05, ge=0, lt=1, description="answers that are less sure are left out")
    overlap: float = Field(
        default=0.6, gt=0, le=1, description="of two answers of one class that share more of their area the surer stays"
    )

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    views: ClassVar[tuple[str, ...]] = ("plain",)
    target: ClassVar[str] = "boxes"
    least_classes: ClassVar[int] = 1
    usual_batch: ClassVar[int] = 8
    pretrained_rate: ClassVar[float] = 0.5
    paper: ClassVar[str] = "FCOS, Tian et al. 2019, https://arxiv.org/abs/1904.01355"
    best_metric: ClassVar[str] = "ap50"

    def preparation(self, suited: Modality) -> Modality:
        """Whole pictures, squeezed to a square of `size`."""
        return self.reading(suited)

    def reading(self, modality: Modality) -> Modality:
        """Whole pictures, squeezed to a square of `size`."""
        changes: dict[str, Any] = {"size": self.size, "fit": "stretch"}
        known = modality.model_dump()
        if known.get("local_size", 0) > self.size:
            changes["local_size"] = max(4, self.size // 2)
        return type(modality).model_validate({**known, **changes})

    def check(self, backbone: EncoderSpec) -> None:
        """It reads maps of pictures; a ViT's patches must cover them."""
        if backbone.family not in _FAMILIES:
            named = " or a ".join(_FAMILIES)
            text = f"detection reads feature maps of a {named}; {backbone.name} is a {backbone.family}"
            raise SpecError("backbone_mismatch", text, "backbone")
        if backbone.family == "vit" and self.size % backbone.patch_size:
            text = f"size {self.size} is no multiple of the backbone's patches of {backbone.patch_size} pixels"
            raise SpecError("size_mismatch", text, "task.size")
        super().check(backbone)

    def build(self, encoder: Encoder, classes: list[str]) -> Nets:
        """With a `Detector` of `classes`."""
        from ssl_core.detector import Detector, shapes_of
        from ssl_core.heads import FinetunedNets

        return FinetunedNets(encoder, detector=Detector(*shapes_of(encoder), len(classes), self.head_width))

    def whole(self, nets: Nets) -> nn.Module:
        """Boxes and scores of all places."""
        from ssl_core.detector import Dense, detector_of

        return Dense(nets.encoder, detector_of(nets))

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Focal loss of classes, overlap of boxes and nearness to the middle; changed pictures while it trains."""
        from ssl_core.detection import assign, losses
        from ssl_core.detection_views import Change, changed, in_pixels
        from ssl_core.detector import detector_of, read_maps
        from ssl_core.encoders.resnet import pictures_of

        pictures, boxes, kinds = pictures_of(batch.views[0]), batch.targets["boxes"], batch.targets["kinds"]
        if nets.training:
            change = Change(self.mirror, self.turn, self.least_cut, self.colour)
            pictures, boxes, kinds = changed(pictures, boxes, kinds, batch.seeds, change)
        found = detector_of(nets)(read_maps(nets.encoder, pictures))
        return losses(found, assign(in_pixels(boxes, pictures), kinds, found.places, found.strides))

    def served(self, modality: Modality, items: list[Any], folder: Any) -> dict[str, NDArray[Any]]:
        """`sizes` (B, 2) int64, width and height of each picture in pixels."""
        import numpy as np

        from ssl_core.data import pictures

        return {"sizes": np.array([pictures.size_of(item) for item in items], dtype=np.int64).reshape(-1, 2)}

    def predict(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """`boxes` (B, K, 4) corners as shares of the picture, `scores` and `kinds` (B, K); `sizes` (B, 2)."""
        from ssl_core.detection import best
        from ssl_core.detector import detector_of, read_maps
        from ssl_core.encoders.resnet import pictures_of

        pictures = pictures_of(batch.views[0])
        side = pictures.shape[-1]
        found = detector_of(nets)(read_maps(nets.encoder, pictures))
        kept = best(found, side, (self.most_boxes, self.least_score, self.overlap))
        told = {"boxes": kept.boxes / side, "scores": kept.scores, "kinds": kept.kinds}
        return told | ({"sizes": batch.targets["sizes"]} if "sizes" in batch.targets else {})

    def metrics(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float]:
        """COCO's average precision, of overlaps 0.5 to 0.95 (`ap`), 0.5 (`ap50`) and 0.75 (`ap75`)."""
        from ssl_core.evaluation.detection_scores import average_precisions

        return average_precisions(outputs, truth)

    def by_class(
        self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor], classes: list[str]
    ) -> list[dict[str, Any]]:
        """`objects`, `ap`, `ap50` and `ap75` of each class; null where it has no object."""
        from ssl_core.evaluation.detection_scores import each_class

        return each_class(outputs, truth, classes)

    def marked(self, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sizes of the pictures."""
        return {"sizes": truth["sizes"]}

    def samples(self, nets: Nets, batch: Batch, classes: list[str], show: Show) -> None:
        """Pictures with what was found beside what is true."""
        from ssl_core.evaluation.detection_scores import show_pictures

        show_pictures(self.predict(nets, batch), batch, classes, show)

    def answer(self, outputs: dict[str, Tensor], row: int, classes: list[str]) -> dict[str, Any]:
        """`{"boxes": [{"label", "score", "box": [x, y, width, height]}]}`, in pixels, the surest first."""
        width, height = outputs["sizes"][row].tolist()
        found = []
        told = (outputs[name][row].tolist() for name in ("boxes", "scores", "kinds"))
        for box, score, kind in zip(*told, strict=True):
            if kind < 0:
                continue
            left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
            sides = [round(each, 2) for each in (left, top, right - left, bottom - top)]
            found.append({"label": classes[kind], "score": score, "box": sides})
        return {"boxes": found}
