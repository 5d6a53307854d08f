"""Next-token prediction. Imports without torch.

A causal encoder reads a document from its beginning and tells each next token; it cannot look ahead. That is all: the
same network then continues any text.

Loss, over the tokens of a document but the first:

    loss = -mean over i of log p(x_i | x_1 .. x_(i-1)),    perplexity = exp(loss)

When to use it: where the model shall write or be scored by perplexity, and as a plain baseline on any sequence. For
vectors of texts an encoder that sees both sides is usually better; in four minutes on news lines it was nevertheless
the best of the language models here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ssl_core.modalities import with_views
from ssl_core.objectives.base import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Batch
    from ssl_core.encoders.base import Encoder
    from ssl_core.evaluation.samples import Show
    from ssl_core.modalities.base import Modality
    from ssl_core.nets import Nets


_SHOWN = 48
"""Tokens of a sample's continuation, at most."""


class NextToken(Objective):
    """Tell each token from those before it in its document, with an output layer that is the token embedding.

    Rows are packed: no token sees another document, and the first token of a document is nobody's target. Metrics:
    `accuracy`, `perplexity`, `bits_per_token` (of proteins, bits of a residue).
    """

    name: Literal["next_token"] = "next_token"

    modalities: ClassVar[tuple[str, ...]] = with_views("packed")
    completes: ClassVar[Literal["continuation", "fill"] | None] = "continuation"
    views: ClassVar[tuple[str, ...]] = ("packed",)
    encoders: ClassVar[tuple[str, ...]] = ("transformer",)
    paper: ClassVar[str] = (
        "Language Models are Unsupervised Multitask Learners (GPT-2), Radford et al. 2019, "
        "https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf"
    )
    constant_wins: ClassVar[bool] = False

    def backbone(self, modality: Modality, queue: str) -> EncoderSpec:
        """Text: a row of GPT-2's kind; others: the modality's own trunk, made causal."""
        from ssl_core.backbones import BACKBONES

        size = "base" if queue == "gpu" else "tiny"
        if modality.name == "text":
            return BACKBONES[f"text-gpt-{size}"]
        return modality.default_backbone(size).model_copy(update={"name": "custom", "attention": "causal"})

    def check(self, backbone: EncoderSpec) -> None:
        """Causal, and as wide as its token table, which is the output layer."""
        from ssl_core.errors import SpecError

        if backbone.attention != "causal":
            text = "next_token needs a backbone with attention causal: with full attention a token sees its own answer"
            raise SpecError("backbone_mismatch", text, "backbone.attention")
        if backbone.embedding_width not in (0, backbone.width):
            text = f"next_token needs embedding_width 0 or {backbone.width}, the width, not {backbone.embedding_width}"
            raise SpecError("backbone_mismatch", text, "backbone.embedding_width")

    def build(self, encoder: Encoder) -> Nets:
        """Nothing but the encoder: the output layer is its token embedding."""
        from ssl_core.nets import Nets

        return Nets(encoder)

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy at the tokens of (B, T) packed rows that have a next one in their document."""
        import math

        from ssl_core.batch import one_text
        from ssl_core.heads import next_token_loss

        tokens = one_text(batch.views)
        loss, accuracy = next_token_loss(nets.encoder, nets.encoder.encode(tokens), tokens)
        told = loss.detach()
        return {"loss": loss, "accuracy": accuracy, "perplexity": told.exp(), "bits_per_token": told / math.log(2)}

    def samples(self, nets: Nets, batch: Batch, show: Show) -> None:
        """The first half of a document of each row, what the model wrote behind it, and what was there."""
        from ssl_core.batch import one_text
        from ssl_core.generation import continuations, openings
        from ssl_core.sampling import Sampling

        sampling = Sampling(max_tokens=_SHOWN, temperature=0.8)
        begun = openings(one_text(batch.views), _SHOWN)
        prompts = [prompt for prompt, _ in begun]
        end = nets.encoder.facts.get("sep_id")
        told = continuations(nets.encoder, prompts, sampling, batch.seeds[: len(begun)], end)
        lines = []
        for (prompt, true), wrote in zip(begun, told, strict=True):
            for name, ids in (("prompt", prompt), ("wrote", wrote), ("true", true)):
                lines.append(f"{name}: {show.words(ids)}")
            lines.append("")
        show.text("continuations", lines, "the first half of documents of the pool, as continued and as they went on")
