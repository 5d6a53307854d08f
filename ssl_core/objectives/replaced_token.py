"""Tell real tokens from a small model's guesses. Imports without torch.

A small generator fills masked tokens in; the encoder gets the text as the generator left it, and says of every token
whether it is the original. Every place teaches something, not only the masked ones, so less text is needed than for
masked language modelling.

Loss, G the generator's masked language loss, d_i what the encoder says of token i, w its weight (the paper's lambda):

    loss = G + w * mean over all i of binary cross-entropy(d_i, token i was replaced)

When to use it: as `mlm`, where compute is short and the text is not. It needs thousands of steps before the
generator's guesses are worth telling apart: in four minutes it was last of the language models here, at a learning
rate that has been lowered since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssl_core.modalities import with_views
from ssl_core.objectives.base import Objective, refuse_causal

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.nets import Nets


class ReplacedToken(Objective):
    """ELECTRA: a generator fills hidden tokens in, and the encoder says of every token whether it is the true one.

    The generator is a narrower trunk on the encoder's token embeddings, trained as a masked language model beside it; a
    guess that happens to be right counts as true. Hidden tokens always become [MASK]. Metrics: `generator_loss`,
    `generator_accuracy`, `discriminator_loss`, `replaced_found` and `real_kept` (shares of the replaced and of the
    true tokens that were told rightly).
    """

    name: Literal["replaced_token"] = "replaced_token"
    mask_probability: float = Field(default=0.15, ge=0.05, le=0.6, description="share of tokens the generator fills in")
    generator_size: float = Field(
        default=0.25, ge=0.1, le=1.0, description="width of the generator, of the encoder's; the paper: 1/4 to 1/2"
    )
    discriminator_weight: float = Field(default=50.0, gt=0, le=1000, description="the paper's lambda")

    modalities: ClassVar[tuple[str, ...]] = with_views("packed")
    views: ClassVar[tuple[str, ...]] = ("packed",)
    encoders: ClassVar[tuple[str, ...]] = ("transformer",)
    paper: ClassVar[str] = "ELECTRA, Clark et al. 2020, https://arxiv.org/abs/2003.10555"
    constant_wins: ClassVar[bool] = False
    rate: ClassVar[float] = 0.4
    comparable_loss: ClassVar[bool] = False

    def check(self, backbone: EncoderSpec) -> None:
        """Tokens are told from both sides."""
        refuse_causal(self.name, backbone)

    def build(self, encoder: Encoder) -> Nets:
        """With a generator, its vocabulary head, and ELECTRA's head of one output."""
        from ssl_core.heads import VocabularyHead
        from ssl_core.nets import Nets
        from ssl_core.replacement import DetectionHead, generator_of

        generator = generator_of(encoder, self.generator_size)
        table = encoder.spec.embedding_width or encoder.embed_dim
        vocabulary = VocabularyHead(generator.embed_dim, encoder.facts["vocab_size"], table)
        detection = DetectionHead(encoder.embed_dim)
        return Nets(encoder, generator=generator, vocabulary=vocabulary, detection=detection)

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Section 2 of the paper on (B, T) packed tokens: the generator's loss and lambda times the encoder's."""
        from ssl_core.batch import one_text
        from ssl_core.heads import masked_language_loss
        from ssl_core.masks import all_masked, mask_tokens
        from ssl_core.replacement import detection_loss, generate_from, replaced

        tokens = one_text(batch.views)
        masked = mask_tokens(tokens, batch.seeds, nets.encoder.facts, self.mask_probability, whole_word=False)
        masked = all_masked(masked, nets.encoder.facts["mask_id"])
        guessed_from = generate_from(nets, masked.tokens)
        generator_loss, accuracy = masked_language_loss(nets, guessed_from, masked)
        corrupted = replaced(nets, guessed_from, masked, batch.seeds)
        told = detection_loss(nets, nets.encoder.encode(corrupted), corrupted.ids != tokens.ids, tokens.segments >= 0)
        return {
            "loss": generator_loss + self.discriminator_weight * told.loss,
            "generator_loss": generator_loss.detach(),
            "generator_accuracy": accuracy,
            "discriminator_loss": told.loss.detach(),
            "replaced_found": told.replaced_found,
            "real_kept": told.real_kept,
        }
