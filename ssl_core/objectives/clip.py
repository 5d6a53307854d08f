"""CLIP: pictures and their texts find each other. Imports without torch.

One tower reads pictures, another texts. In a batch of pairs each picture must find its own text among all, and each
text its picture. The towers end in one space: afterwards a text finds pictures, a picture texts, and a class can be
told by its name alone.

Loss, u and v the unit vectors of N pictures and texts, s a learned scale:

    L_ij = s * u_i . v_j
    loss = ( mean over i of -log softmax_j(L)_ii  +  mean over i of -log softmax_i(L)_ii ) / 2

When to use it: wherever pictures come with captions, names or descriptions. It wants large batches; captions that come
twice in a batch are not taken for wrong. With small batches take SigLIP.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssl_core.modalities import with_views
from ssl_core.objectives.base import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.nets import Nets


class CLIP(Objective):
    """Contrastive learning of pictures with texts, the other pairs of the batch as negatives, a learned temperature.

    Texts that are equal in a batch are no negatives of each other. Metrics: `image_to_text` and `text_to_image`, the
    shares whose partner is the nearest of the batch, and `scale`, the inverse of the temperature.
    """

    name: Literal["clip"] = "clip"
    temperature: float = Field(
        default=0.07, ge=0.01, le=2, description="at the beginning, unless the base model has one; it is learned"
    )
    max_scale: float = Field(
        default=100.0, ge=1, le=1000, description="1 / temperature is kept at or under this; CLIP: 100"
    )

    modalities: ClassVar[tuple[str, ...]] = with_views("pair")
    views: ClassVar[tuple[str, ...]] = ("pair",)
    encoders: ClassVar[tuple[str, ...]] = ("dual",)
    paper: ClassVar[str] = "CLIP, Radford et al. 2021, https://arxiv.org/abs/2103.00020"

    def build(self, encoder: Encoder) -> Nets:
        """With the logarithm of the scale."""
        from ssl_core.nets import Nets
        from ssl_core.pair_losses import Scale

        return Nets(encoder, scale=Scale(min(1 / self.temperature, self.max_scale)))

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """The mean of both directions of pictures (B, C, H, W) and texts (B, T)."""
        from ssl_core import pair_losses
        from ssl_core.batch import one_pair
        from ssl_core.encoders.dual import towers

        image, text = one_pair(batch.views)
        vectors = towers(nets.encoder, image, text)
        scale = nets.parts["scale"]()
        loss, forth, back = pair_losses.clip(*vectors, scale, pair_losses.fingerprints(text))
        return {"loss": loss, "image_to_text": forth, "text_to_image": back, "scale": scale.detach()}

    def after_step(self, nets: Nets, progress: float) -> None:
        """Keep the scale at or under `max_scale`."""
        import torch

        with torch.no_grad():
            for logarithm in nets.parts["scale"].parameters():
                logarithm.clamp_(max=math.log(self.max_scale))
