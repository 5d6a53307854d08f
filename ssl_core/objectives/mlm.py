"""Masked language modelling. Imports without torch.

A share of the tokens of a text (or of the residues of a protein) is hidden: of those chosen, 80 % become a mask, 10 %
a random token, 10 % stay. The encoder reads what is left from both sides, and at each chosen place tells which token
was there. Knowing that asks for grammar, topic, and in proteins for what evolution keeps together.

Loss, M the chosen places, x the text, x' what is left of it:

    loss = -mean over i in M of log p(x_i | x')

When to use it: for proteins first; for texts where the pool is large (millions of words) and fine-tuning follows, for
tagging, or where masks should be filled in. In minutes on a small pool of texts, span contrast makes better features
for classification, and the loss of the first thousand steps mostly learns how frequent each token is.
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
    from ssl_core.evaluation.samples import Show
    from ssl_core.nets import Nets


class MaskedLanguageModelling(Objective):
    """Hide a share of the tokens and tell what they were, from both sides.

    Rows are packed, documents do not see each other, and vocabulary logits are computed at hidden places only.
    Metrics: `masked_accuracy`, `perplexity`.
    """

    name: Literal["mlm"] = "mlm"
    mask_probability: float = Field(
        default=0.15,
        ge=0.05,
        le=0.6,
        description="share of tokens hidden; BERT: 0.15, ModernBERT: 0.30",
    )
    whole_word: bool = Field(
        default=False,
        description="hide whole words; one that the share would cut stays, so slightly fewer tokens are hidden",
    )

    modalities: ClassVar[tuple[str, ...]] = with_views("packed")
    completes: ClassVar[Literal["continuation", "fill"] | None] = "fill"
    views: ClassVar[tuple[str, ...]] = ("packed",)
    encoders: ClassVar[tuple[str, ...]] = ("transformer",)
    paper: ClassVar[str] = "BERT, Devlin et al. 2019, https://arxiv.org/abs/1810.04805"
    constant_wins: ClassVar[bool] = False

    def check(self, backbone: EncoderSpec) -> None:
        """Tokens are told from both sides."""
        refuse_causal(self.name, backbone)

    def build(self, encoder: Encoder) -> Nets:
        """With BERT's head: a transform, and an output layer tied to the token embedding."""
        from ssl_core.heads import VocabularyHead
        from ssl_core.nets import Nets

        head = VocabularyHead(encoder.embed_dim, encoder.facts["vocab_size"], encoder.spec.embedding_width)
        return Nets(encoder, vocabulary=head)

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy at the hidden places of (B, T) packed tokens."""
        from ssl_core.batch import one_text
        from ssl_core.heads import masked_language_loss
        from ssl_core.masks import mask_tokens

        tokens, facts = one_text(batch.views), nets.encoder.facts
        masked = mask_tokens(tokens, batch.seeds, facts, self.mask_probability, self.whole_word)
        loss, accuracy = masked_language_loss(nets, nets.encoder.encode(masked.tokens), masked)
        return {"loss": loss, "masked_accuracy": accuracy, "perplexity": loss.detach().exp()}

    def samples(self, nets: Nets, batch: Batch, show: Show) -> None:
        """Rows with each hidden token and the model's guess."""
        from ssl_core.batch import one_text
        from ssl_core.heads import fills
        from ssl_core.masks import mask_tokens

        tokens, facts = one_text(batch.views), nets.encoder.facts
        masked = mask_tokens(tokens, batch.seeds, facts, self.mask_probability, self.whole_word)
        guesses = fills(nets, nets.encoder.encode(masked.tokens), masked)
        lines = []
        for row in range(len(guesses)):
            hidden = masked.weights[row] > 0
            told = dict(zip(masked.places[row][hidden].tolist(), guesses[row][hidden].tolist(), strict=True))
            lines.append(show.filled(tokens.ids[row][tokens.segments[row] >= 0], told))
        show.text("fills", lines, "[hidden > guessed] in rows of the pool")
