"""DINO: crops of a picture are sorted as a slow teacher sorts the whole. Imports without torch.

A teacher looks at two large crops of a picture and sorts each into soft classes that nobody named; a student sorts all
crops, small ones too, and must come to the same answer. The teacher is a moving average of the student. Its answers
are sharpened, and the mean answer is taken off, so that neither one class wins everything nor all are alike.

Loss, P the teacher's answer to a large crop g, S the student's to another crop v, c the centre, tt and ts the
temperatures:

    P(g) = softmax((teacher(g) - c) / tt),    S(v) = softmax(student(v) / ts)
    loss = mean over g and v != g of -sum_k P_k(g) log S_k(v)

When to use it: with a ViT, a GPU and hours, for features that tell objects and their parts apart without further
training (nearest neighbours, attention maps). Eight crops make a step dear: on a CPU SimCLR learns more in the same
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssl_core.modalities import with_views
from ssl_core.objectives.base import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets
    from ssl_core.teacher import Teacher

_GLOBAL = 2


class DINO(Objective):
    """Self-distillation with no labels: two large crops for teacher and student, six small ones for the student alone.

    Centring keeps one prototype from winning everything, sharpening keeps all from being alike; the paper's schedules
    count in shares of the training. The centre is of the outputs of all processes. Metrics, of a process's own share:
    `teacher_entropy` (nats, of a crop's assignment) and `batch_entropy` (of the mean assignment; where both are equal,
    all crops are assigned alike, which is collapse); `teacher_temperature`, `teacher_momentum`.
    """

    name: Literal["dino"] = "dino"
    prototypes: int = Field(default=4096, ge=16, le=262_144, description="outputs of the head; DINO on ImageNet: 65536")
    head_hidden: int = Field(default=2048, ge=16, le=16_384, description="hidden width of the head")
    head_bottleneck: int = Field(default=256, ge=8, le=4096, description="width before the prototypes")
    student_temperature: float = Field(default=0.1, ge=0.01, le=1)
    teacher_temperature: float = Field(default=0.07, ge=0.005, le=1, description="at the end of its warm-up")
    teacher_temperature_start: float = Field(default=0.04, ge=0.005, le=1)
    teacher_warmup: float = Field(
        default=0.1, ge=0, le=1, description="share of the training in which the teacher's temperature rises"
    )
    momentum: float = Field(
        default=0.996, ge=0, le=1, description="the teacher's at the start, rising to 1 along a cosine"
    )
    centre_momentum: float = Field(default=0.9, ge=0, le=1, description="of the centre; 1 = never centred")
    freeze: float = Field(
        default=0.01, ge=0, le=1, description="share of the training while the prototypes rest; DINO: 1 of 100 epochs"
    )

    modalities: ClassVar[tuple[str, ...]] = with_views("global", "local")
    views: ClassVar[tuple[str, ...]] = ("global",) * _GLOBAL + ("local",) * 6
    paper: ClassVar[str] = "DINO, Caron et al. 2021, https://arxiv.org/abs/2104.14294"
    comparable_loss: ClassVar[bool] = False

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """On a GPU the paper's ViT-Small, read at its class token; on a CPU the modality's: eight crops are dear."""
        from ssl_core.patch_sizes import square_vit

        if queue != "gpu" or "vit" not in modality.families:
            return super().backbone(modality, queue)
        return square_vit("vit-small", modality.slots("plain")).model_copy(update={"name": "custom", "pooling": "cls"})

    def build(self, encoder: Encoder) -> Nets:
        """With a head of prototypes, a teacher of both, and the centre; only the student's encoder is exported."""
        from ssl_core.nets import Nets
        from ssl_core.prototypes import Centre, PrototypeHead
        from ssl_core.teacher import Teacher

        head = PrototypeHead(encoder.embed_dim, self.head_hidden, self.head_bottleneck, self.prototypes)
        teacher = Teacher(encoder=encoder, head=head)
        head.open.fill_(float(self.freeze == 0))
        return Nets(encoder, head=head, teacher=teacher, centre=Centre(self.prototypes, self.centre_momentum))

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Equation 3 of the paper, the mean over the pairs of different crops; one pass for each size of crop."""
        import torch

        from ssl_core.batch import stacked
        from ssl_core.losses import entropy, multi_crop_loss
        from ssl_core.prototypes import centre_of
        from ssl_core.teacher import teacher_of

        whole, parts = stacked(batch.views[:_GLOBAL]), stacked(batch.views[_GLOBAL:])
        vectors = torch.cat([nets.encoder(whole), nets.encoder(parts)])
        student = nets.parts["head"](vectors).unflatten(0, (len(batch.views), -1))
        teacher = teacher_of(nets)
        temperature = self._temperature(teacher)
        with torch.no_grad():
            outputs = teacher.copies["head"](teacher.copies["encoder"](whole)).unflatten(0, (_GLOBAL, -1))
            targets = centre_of(nets).assign(outputs, temperature)
        return {
            "loss": multi_crop_loss(student, targets, self.student_temperature),
            "teacher_entropy": entropy(targets).mean(),
            "batch_entropy": entropy(targets.flatten(0, 1).mean(0)),
            "teacher_temperature": temperature,
            "teacher_momentum": teacher.momentum.clone(),
        }

    def _temperature(self, teacher: Teacher) -> Tensor:
        """The teacher's, () float32: warmed up linearly, without waiting for the device."""
        done = (teacher.progress / max(self.teacher_warmup, 1e-9)).clamp(max=1.0)
        start, end = self.teacher_temperature_start, self.teacher_temperature
        return start + (end - start) * done

    def after_step(self, nets: Nets, progress: float) -> None:
        """The teacher takes a step towards the student; the prototypes learn once their rest is over."""
        from ssl_core.prototypes import head_of
        from ssl_core.teacher import cosine_momentum, teacher_of

        head = head_of(nets)
        head.open.fill_(float(progress >= self.freeze))
        students = {"encoder": nets.encoder, "head": head}
        teacher_of(nets).follow(students, cosine_momentum(self.momentum, progress), progress)
