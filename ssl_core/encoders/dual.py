"""Two encoders whose vectors lie in one space: one for pictures, one for texts. Needs torch.

As in CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020): each tower's vector goes through a linear layer
without a bias. Or as in SigLIP (Zhai et al. 2023, https://arxiv.org/abs/2303.15343): the text's alone, with a bias.
B samples, D width of the shared space.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Inputs, Pairs, Tokens
from ssl_core.encoders.base import Encoder


class Dual(Encoder):
    """Towers `image` and `text`, built from the spec's own and from the facts of the same names."""

    def __init__(self, spec: EncoderSpec, facts: dict[str, Any]) -> None:
        from ssl_core.encoders import build_encoder

        super().__init__()
        assert spec.image is not None and spec.text is not None  # the spec's own validation
        self.spec, self.facts, self.embed_dim = spec, facts, spec.width
        self.image = build_encoder(spec.image, facts["image"])
        self.text = build_encoder(spec.text, facts["text"])
        lone = spec.projection == "text"
        self.image_projection = nn.Identity() if lone else _projection(self.image.embed_dim, spec.width, False)
        self.text_projection = _projection(self.text.embed_dim, spec.width, lone)

    def of_images(self, images: Tensor) -> Tensor:
        """(B, D) of pictures (B, C, H, W)."""
        projected: Tensor = self.image_projection(self.image(images))
        return projected

    def of_texts(self, texts: Tokens) -> Tensor:
        """(B, D) of texts, one a row."""
        projected: Tensor = self.text_projection(self.text(texts))
        return projected

    def pictures_only(self) -> None:
        """Train no more than what makes a picture's vector."""
        for part in (self.text, self.text_projection):
            part.requires_grad_(False)

    def encode(self, x: Inputs, keep: Tensor | None = None, fill: Tensor | None = None) -> Tensor:
        """(B, 1, D): this family has no tokens of its own; its towers may."""
        if keep is not None or fill is not None:
            raise TypeError("an encoder of pairs hides nothing; its towers may")
        vectors: Tensor = self(x)
        return vectors[:, None]

    def forward(self, x: Inputs) -> Tensor:
        """(B, D): of each sample the picture's vector where it has one, else the text's."""
        if not isinstance(x, Pairs):
            raise TypeError("an encoder of pairs reads Pairs")
        images = None if x.image is None else self.of_images(x.image)
        if images is not None and x.pictured is None:
            return images
        texts = None if x.text is None else self.of_texts(x.text)
        known = images if images is not None else texts
        assert known is not None  # a sample has a picture or a text
        pictured = x.pictured
        if pictured is None:
            return known
        vectors = known.new_empty(len(pictured), self.embed_dim)
        if images is not None:
            vectors[pictured] = images
        if texts is not None:
            vectors[~pictured] = texts
        return vectors


def _projection(width: int, shared: int, bias: bool) -> nn.Linear:
    layer = nn.Linear(width, shared, bias=bias)
    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def towers(encoder: nn.Module, image: Tensor, text: Tokens) -> tuple[Tensor, Tensor]:
    """(B, D) of pictures and of texts. Raises TypeError where the encoder has no two towers."""
    if not isinstance(encoder, Dual):
        raise TypeError("this objective needs an encoder with a tower for pictures and one for texts")
    return encoder.of_images(image), encoder.of_texts(text)
