"""SimCLR: two augmented views of a picture find each other. Imports without torch.

Each picture is cut, mirrored and coloured twice at random. Encoder and projector make a vector of each view, and of
all vectors in the batch a view must find the one that came from the same picture. What the cuts and colours change
cannot help with that, so the encoder learns to look past it. The projector is thrown away at the end.

Loss (NT-Xent) over the 2N views of N pictures, z the projected vectors, z_p the partner of z_i, t the temperature:

    l(i) = -log( exp(cos(z_i, z_p) / t) / sum over k != i of exp(cos(z_i, z_k) / t) )
    loss = mean of l(i) over all 2N views

When to use it: first, for pictures and for sounds (which are log-mel pictures here). It wants many samples in a batch,
since the others are its only negatives; with few kinds of pictures most of them are of one's own kind, and a
temperature of 0.5 pushes them apart less. If batches must be small, take VICReg or BYOL.
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
