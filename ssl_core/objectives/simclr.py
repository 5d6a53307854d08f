"""SimCLR: two augmented views of a picture find each other. Imports without torch."""

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


class SimCLR(Objective):
    """Contrastive learning of pictures with in-batch negatives.

    With several processes the negatives are those of the whole batch. Metric: `contrast_accuracy`, the share of views
    whose partner is the nearest of the batch.
    """

    name: Literal["simclr"] = "simclr"
    temperature: float = Field(
        default=0.1, ge=0.01, le=2, description="SimCLR on ImageNet: 0.1, the best of its table 5; on CIFAR-10: 0.5"
    )
    projector_hidden: int = Field(default=512, ge=16, le=8192, description="width of the projector's hidden layers")
    projector_dim: int = Field(default=128, ge=8, le=8192, description="size of the projected vector")
    projector_layers: int = Field(default=2, ge=1, le=4, description="linear layers of the projector")

    modalities: ClassVar[tuple[str, ...]] = with_views("global")
    views: ClassVar[tuple[str, ...]] = ("global", "global")
    paper: ClassVar[str] = "SimCLR, Chen et al. 2020, https://arxiv.org/abs/2002.05709"

    def build(self, encoder: Encoder) -> Nets:
        """With a projector, which is not part of the exported encoder."""
        from ssl_core.layers import ProjectionHead
        from ssl_core.nets import Nets

        head = ProjectionHead(encoder.embed_dim, self.projector_hidden, self.projector_dim, self.projector_layers)
        return Nets(encoder, projector=head)

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """NT-Xent of two views (B, C, H, W), both in one pass so that batch normalisation sees them together."""
        from ssl_core.batch import stacked
        from ssl_core.losses import nt_xent

        first, second = nets.parts["projector"](nets.encoder(stacked(batch.views))).chunk(2)
        loss, found = nt_xent(first, second, self.temperature)
        return {"loss": loss, "contrast_accuracy": found}
