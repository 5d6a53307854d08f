"""What every encoder offers. Needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Inputs


class Encoder(nn.Module):
    """A trunk from inputs to vectors. It owns no mask token: an unused parameter would break DDP.

    Attributes:
        spec: what it was built from.
        facts: what it must know of the input, e.g. `{"vocab_size": 8192, "mask_id": 4, ...}` for text or
            `{"channels": 3, "size": 32}` for images; from `Source.facts`, saved with the model.
        embed_dim: D, the size of an output vector.
    """

    spec: EncoderSpec
    facts: dict[str, Any]
    embed_dim: int

    def patches(self, x: Inputs) -> Tensor:
        """(B, N, D) the input embeddings that `fill` takes the place of; of encoders with tokens or patches."""
        raise NotImplementedError

    def encode(self, x: Inputs, keep: Tensor | None = None, fill: Tensor | None = None) -> Tensor:
        """(B, N, D): one vector for each token or patch.

        Args:
            x: the inputs of this encoder's modality.
            keep: (B, K) int64 indices; only these positions are computed, N becomes K (MAE's visible patches).
            fill: (B, N, D) input embeddings that take the place of the encoder's own (a learned mask token).
        """
        raise NotImplementedError

    def maps(self, x: Inputs) -> list[Tensor]:
        """(B, C, h, w) feature maps of pictures, each coarser than the one before; of encoders of pictures."""
        raise NotImplementedError

    def forward(self, x: Inputs) -> Tensor:
        """(B, D): one vector a sample (text: mean over the row's real tokens; images: global average)."""
        raise NotImplementedError
