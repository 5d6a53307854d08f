"""BYOL: predict a slow teacher's view of the same picture, without negatives. Imports without torch.

A student predicts, from one view of a picture, what a teacher makes of another view of it. The teacher is a moving
average of the student and gets no gradient. Nothing pushes different pictures apart: what keeps all vectors from being
the same is the predictor, which the teacher does not have, and the slowness of the teacher.

Loss, q the student's prediction, z' the teacher's projection, of both orders of the two views v and w:

    loss = (2 - 2 cos(q(v), z'(w))) + (2 - 2 cos(q(w), z'(v)))        from 0 to 8
    teacher <- m * teacher + (1 - m) * student        after each step, m rising to 1

When to use it: where batches are too small for negatives, or where the pool has many near-duplicates that SimCLR would
push apart. It starts slowly: in five minutes it was behind SimCLR on pictures, and behind VICReg on pictures and
sounds. Watch `target_evenness`: its loss falls also when it collapses, so a run whose targets are alike is ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssl_core.modalities import with_views
from ssl_core.objectives.base import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.nets import Nets


class BYOL(Objective):
    """Bootstrap your own latent: the student's prediction of one view meets the teacher's projection of the other.

    Both views pass in one call, so batch normalisation sees them together, over all processes. Metrics, of a process's
    own share: `teacher_cosine` (mean cosine of prediction and target), `target_evenness` (1 = the targets fill the
    sphere evenly, 0 = collapsed); `teacher_momentum`.
    """

    name: Literal["byol"] = "byol"
    momentum: float = Field(
        default=0.99, ge=0, le=1, description="the teacher's at the start, rising to 1 along a cosine; BYOL: 0.996"
    )
    projector_hidden: int = Field(default=4096, ge=16, le=16384, description="hidden width of projector and predictor")
    projector_dim: int = Field(default=256, ge=8, le=8192, description="size of the projected vector")
    projector_layers: int = Field(default=2, ge=1, le=4, description="linear layers of the projector")
    predictor_layers: int = Field(
        default=2, ge=0, le=4, description="linear layers of the predictor; without one (0) BYOL collapses"
    )

    modalities: ClassVar[tuple[str, ...]] = with_views("global")
    views: ClassVar[tuple[str, ...]] = ("global", "global")
    paper: ClassVar[str] = "BYOL, Grill et al. 2020, https://arxiv.org/abs/2006.07733"
    comparable_loss: ClassVar[bool] = False
    alive: ClassVar[dict[str, float]] = {"target_evenness": 0.05}

    def build(self, encoder: Encoder) -> Nets:
        """With projector and predictor, and a teacher of encoder and projector; only the encoder is exported."""
        from torch import nn

        from ssl_core.layers import ProjectionHead
        from ssl_core.nets import Nets
        from ssl_core.teacher import Teacher

        hidden, out = self.projector_hidden, self.projector_dim
        projector = ProjectionHead(encoder.embed_dim, hidden, out, self.projector_layers)
        predictor = ProjectionHead(out, hidden, out, self.predictor_layers) if self.predictor_layers else nn.Identity()
        teacher = Teacher(encoder=encoder, projector=projector)
        return Nets(encoder, projector=projector, predictor=predictor, teacher=teacher)

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Equation 2 of the paper with the views in both orders, of (B, C, H, W) pictures: from 0 to 8."""
        import torch

        from ssl_core.batch import stacked
        from ssl_core.losses import paired_cosines
        from ssl_core.teacher import evenness, teacher_of

        pictures, teacher = stacked(batch.views), teacher_of(nets)
        predicted = nets.parts["predictor"](nets.parts["projector"](nets.encoder(pictures)))
        with torch.no_grad():
            targets = teacher.copies["projector"](teacher.copies["encoder"](pictures))
        cosine = paired_cosines(predicted, torch.cat(targets.chunk(2)[::-1])).mean()
        return {
            "loss": 4 - 4 * cosine,
            "teacher_cosine": cosine.detach(),
            "target_evenness": evenness(targets),
            "teacher_momentum": teacher.momentum.clone(),
        }

    def after_step(self, nets: Nets, progress: float) -> None:
        """The teacher takes a step towards the student."""
        from ssl_core.teacher import cosine_momentum, teacher_of

        students = {"encoder": nets.encoder, "projector": nets.parts["projector"]}
        teacher_of(nets).follow(students, cosine_momentum(self.momentum, progress), progress)
