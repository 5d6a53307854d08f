"""A document finds itself under another dropout. Imports without torch.

The encoder reads each document twice, each time with other units dropped at random. Both readings must find each other
among all readings of the batch. Dropout is the least change a text can suffer, so nothing of its meaning is lost.

Loss, h and h' the two readings of N documents, t the temperature:

    loss = -mean over i of log( exp(cos(h_i, h'_i) / t) / sum over j of exp(cos(h_i, h'_j) / t) )

When to use it: for short texts (a line, a question), of which no two spans can be taken, and to make the vectors of an
imported language model comparable by cosine; start from such a model. From scratch, span contrast learns more of
topics.
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


class SentenceContrast(Objective):
    """Unsupervised SimCSE: each document is read twice, and dropout is all that differs.

    The paper drops inside every layer, and the recipe's backbone does too. Most models to go on from have no dropout,
    so that here channels of the token embeddings are dropped as well, by the samples' seeds and also in validation,
    where both readings would otherwise be one. Vectors are means over tokens, without the paper's extra layer.
    Metric: `contrast_accuracy`.
    """

    name: Literal["sentence_contrast"] = "sentence_contrast"
    temperature: float = Field(default=0.05, ge=0.01, le=2, description="divides the cosine")
    dropout: float = Field(default=0.1, ge=0.01, le=0.5, description="share of a token embedding's channels dropped")

    modalities: ClassVar[tuple[str, ...]] = with_views("plain", "packed")
    views: ClassVar[tuple[str, ...]] = ("plain",)
    encoders: ClassVar[tuple[str, ...]] = ("transformer",)
    paper: ClassVar[str] = "SimCSE, Gao et al. 2021, https://arxiv.org/abs/2104.08821"

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """The modality's, with the paper's dropout."""
        return super().backbone(modality, queue).model_copy(update={"name": "custom", "dropout": 0.1})

    def build(self, encoder: Encoder) -> Nets:
        """Nothing but the encoder."""
        from ssl_core.nets import Nets

        return Nets(encoder)

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Equation 4 of the paper on (B, T) documents, both readings in one pass."""
        import torch

        from ssl_core.batch import joined, one_text
        from ssl_core.layers import masked_mean
        from ssl_core.losses import simcse
        from ssl_core.masks import seeded_dropout
        from ssl_core.rng import mix

        document = one_text(batch.views)
        twice = joined((document, document))
        seeds = torch.cat([mix(batch.seeds, reading) for reading in range(2)])
        embedded = seeded_dropout(nets.encoder.patches(twice), seeds, self.dropout)
        vectors = masked_mean(nets.encoder.encode(twice, fill=embedded), twice.segments >= 0)
        first, second = vectors.chunk(2)
        loss, found = simcse(first, second, self.temperature)
        return {"loss": loss, "contrast_accuracy": found}
