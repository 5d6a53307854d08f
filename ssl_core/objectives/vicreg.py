"""VICReg: two views agree while their dimensions vary and stay uncorrelated. Imports without torch.

Two views of a sample must have the same vector; that alone is met by one vector for everything. Two further terms
forbid it: each dimension must vary over the batch, and no two dimensions may say the same.

Loss, z and z' the expanded vectors (N, D) of the two views, C their covariance, l, m, n the three weights:

    invariance = mean squared distance of z and z'
    variance   = mean over dimensions of max(0, 1 - standard deviation), the mean of both views
    covariance = sum over i != j of C_ij^2, by D, the sum of both views
    loss = l * invariance + m * variance + n * covariance

When to use it: where SimCLR would be, with smaller batches or with a pool in which many samples are alike: it has no
negatives and no teacher. On spoken digits five minutes of it came near the classical opponent.
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


class VICReg(Objective):
    """Variance, invariance and covariance regularisation: no negatives and no teacher.

    With several processes variance and covariance are those of the whole batch. Metrics: `invariance`, `variance` and
    `covariance`, the three terms before their weights; a variance near 1 is collapse.
    """

    name: Literal["vicreg"] = "vicreg"
    invariance_weight: float = Field(default=25.0, ge=0, le=1000, description="lambda of the paper")
    variance_weight: float = Field(default=25.0, ge=0, le=1000, description="mu of the paper; 0 collapses")
    covariance_weight: float = Field(default=1.0, ge=0, le=1000, description="nu of the paper")
    expander_dim: int = Field(default=1024, ge=16, le=16384, description="width of all its layers; the paper: 8192")
    expander_layers: int = Field(default=3, ge=1, le=4, description="linear layers of the expander")

    modalities: ClassVar[tuple[str, ...]] = with_views("global")
    views: ClassVar[tuple[str, ...]] = ("global", "global")
    paper: ClassVar[str] = "VICReg, Bardes et al. 2021, https://arxiv.org/abs/2105.04906"

    def build(self, encoder: Encoder) -> Nets:
        """With an expander, which is not part of the exported encoder."""
        from ssl_core.layers import ProjectionHead
        from ssl_core.nets import Nets

        head = ProjectionHead(encoder.embed_dim, self.expander_dim, self.expander_dim, self.expander_layers)
        return Nets(encoder, expander=head)

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """The three weighted terms of two views (B, C, H, W), both in one pass."""
        from ssl_core.batch import stacked
        from ssl_core.losses import vicreg_terms

        first, second = nets.parts["expander"](nets.encoder(stacked(batch.views))).chunk(2)
        invariance, variance, covariance = vicreg_terms(first, second)
        loss = (
            self.invariance_weight * invariance
            + self.variance_weight * variance
            + self.covariance_weight * covariance
        )
        return {
            "loss": loss,
            "invariance": invariance.detach(),
            "variance": variance.detach(),
            "covariance": covariance.detach(),
        }
