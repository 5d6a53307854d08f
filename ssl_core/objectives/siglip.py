"""SigLIP: of every picture and text, whether they belong together. Imports without torch.

Two towers as CLIP's, but each combination of a picture and a text of the batch is judged by itself: do they belong
together, yes or no. There is no softmax over the batch, so its size matters less.

Loss, u and v the unit vectors of N pictures and texts, s a learned scale, b a learned bias, y_ij = 1 for a pair, else
-1:

    loss = -(1 / N) * sum over i, j of log sigmoid( y_ij * (s * u_i . v_j + b) )

When to use it: as CLIP, where batches are small. Nearly all combinations are wrong ones, so the bias starts at -10; a
short run spends its first steps on getting over that.
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


class SigLIP(Objective):
    """Learning of pictures with texts by a sigmoid loss over all pairs of the batch, with a learned scale and bias.

    Texts that are equal in a batch are no negatives of each other. Metrics: `image_to_text` and `text_to_image`, the
    shares whose partner is the nearest of the batch, `scale` and `bias`.
    """

    name: Literal["siglip"] = "siglip"
    temperature: float = Field(
        default=0.1, ge=0.01, le=2, description="at the beginning, unless the base model has one; it is learned"
    )
    bias: float = Field(
        default=-10.0, ge=-100, le=0, description="at the beginning: pairs start out as wrong, as most of them are"
    )

    modalities: ClassVar[tuple[str, ...]] = with_views("pair")
    views: ClassVar[tuple[str, ...]] = ("pair",)
    encoders: ClassVar[tuple[str, ...]] = ("dual",)
    paper: ClassVar[str] = "SigLIP, Zhai et al. 2023, https://arxiv.org/abs/2303.15343"

    def build(self, encoder: Encoder) -> Nets:
        """With the logarithm of the scale, and the bias."""
        from ssl_core.nets import Nets
        from ssl_core.pair_losses import Scale

        return Nets(encoder, scale=Scale(1 / self.temperature, self.bias))

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Over all pairs of pictures (B, C, H, W) and texts (B, T)."""
        from ssl_core import pair_losses
        from ssl_core.batch import one_pair
        from ssl_core.encoders.dual import towers
        from ssl_core.pair_losses import Scale

        image, text = one_pair(batch.views)
        vectors = towers(nets.encoder, image, text)
        part = nets.parts["scale"]
        assert isinstance(part, Scale) and part.bias is not None
        scale, bias = part(), part.bias
        loss, forth, back = pair_losses.siglip(*vectors, scale, bias, pair_losses.fingerprints(text))
        found = {"image_to_text": forth, "text_to_image": back}
        return {"loss": loss, **found, "scale": scale.detach(), "bias": bias.detach()}
