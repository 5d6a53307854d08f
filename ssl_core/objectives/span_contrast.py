"""Two random spans of one document find each other. Imports without torch.

Two spans are taken at random from each document, near to each other or far apart. Their mean vectors must find each
other among the spans of all documents of the batch. What two places of a document share is its topic and its style,
and that is what few labels ask for most often.

Loss (InfoNCE), a and b the vectors of the two spans of N documents, t the temperature, of both directions:

    loss = -mean over i of log( exp(cos(a_i, b_i) / t) / sum over j of exp(cos(a_i, b_j) / t) )

and with `mask_weight` w also w times the masked language loss of the same spans.

When to use it: first, for texts, where minutes of one core must do. On small pools one wide layer with a large
vocabulary (the recipe's `text-shallow`) learns topics fastest. Not for tagging or for single words: what a span shares
with another is not what one word is.
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


class SpanContrast(Objective):
    """Document-level contrastive learning of text, optionally with masked language modelling on the same spans.

    The modality's `span_min` and `span_max` set the spans. With several processes the negatives are those of
    the whole batch. Metrics: `contrast_accuracy`, `contrast_loss`; with a masked part also `masked_accuracy`,
    `masked_loss`.
    """

    name: Literal["span_contrast"] = "span_contrast"
    temperature: float = Field(
        default=0.2, ge=0.01, le=2, description="DeCLUTR: 0.05; pools of some thousand documents want 0.1 to 0.2"
    )
    projector_dim: int = Field(
        default=0, ge=0, le=8192, description="0 = contrast the encoder's own vectors, as DeCLUTR does"
    )
    projector_hidden: int = Field(default=512, ge=16, le=8192, description="hidden width, where there is a projector")
    mask_weight: float = Field(
        default=0.0, ge=0, le=10, description="weight of masked language modelling; 0 = spans are not masked"
    )
    mask_probability: float = Field(default=0.15, ge=0.05, le=0.6, description="share of tokens hidden")

    modalities: ClassVar[tuple[str, ...]] = with_views("span")
    views: ClassVar[tuple[str, ...]] = ("span", "span")
    encoders: ClassVar[tuple[str, ...]] = ("transformer",)
    paper: ClassVar[str] = (
        "DeCLUTR, Giorgi et al. 2021, https://arxiv.org/abs/2006.03659; "
        "Contriever, Izacard et al. 2022, https://arxiv.org/abs/2112.09118"
    )

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """On a CPU one wide layer for text: in minutes, a large vocabulary learns more about topics than depth does."""
        from ssl_core.backbones import BACKBONES

        if modality.name == "text" and queue == "cpu":
            return BACKBONES["text-shallow"]
        return super().backbone(modality, queue)

    def build(self, encoder: Encoder) -> Nets:
        """With a projector and a vocabulary head where the fields ask for them."""
        from ssl_core.heads import VocabularyHead
        from ssl_core.layers import ProjectionHead
        from ssl_core.nets import Nets

        nets = Nets(encoder)
        if self.projector_dim:
            nets.parts["projector"] = ProjectionHead(encoder.embed_dim, self.projector_hidden, self.projector_dim, 2)
        if self.mask_weight:
            nets.parts["vocabulary"] = VocabularyHead(encoder.embed_dim, encoder.facts["vocab_size"])
        return nets

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """InfoNCE between the mean vectors of two spans, (B, T) tokens each; both in one pass."""
        import torch

        from ssl_core.batch import joined
        from ssl_core.heads import masked_language_loss
        from ssl_core.layers import masked_mean
        from ssl_core.losses import info_nce
        from ssl_core.masks import mask_tokens
        from ssl_core.rng import mix

        tokens, masked = joined(batch.views), None
        if self.mask_weight:
            seeds = torch.cat([mix(batch.seeds, view) for view in range(2)])
            masked = mask_tokens(tokens, seeds, nets.encoder.facts, self.mask_probability, whole_word=False)
            tokens = masked.tokens
        hidden = nets.encoder.encode(tokens)
        vectors = masked_mean(hidden, tokens.segments >= 0)
        if self.projector_dim:
            vectors = nets.parts["projector"](vectors)
        first, second = vectors.chunk(2)
        loss, found = info_nce(first, second, self.temperature)
        values = {"contrast_loss": loss.detach(), "contrast_accuracy": found}
        if masked is not None:
            masked_loss, accuracy = masked_language_loss(nets, hidden, masked)
            loss = loss + self.mask_weight * masked_loss
            values |= {"masked_loss": masked_loss.detach(), "masked_accuracy": accuracy}
        return {"loss": loss, **values}
