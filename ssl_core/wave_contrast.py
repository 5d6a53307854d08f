"""The loss of wav2vec 2.0. Needs torch.

Baevski et al. 2020, https://arxiv.org/abs/2006.11477, equations 2 to 4: the cross-entropy of a hidden frame's own code
among its distractors', and a diversity loss, the share of codebook entries that is not in use. With several processes
over the clips of all of them.

B clips, S samples, F frames, G groups of V entries, E width of a code, K distractors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssl_core.distributed import gathered
from ssl_core.encoders.wave import Wave, frames_of
from ssl_core.errors import SpecError
from ssl_core.nets import Nets
from ssl_core.quantiser import (
    Quantiser,
    draw_distractors,
    gumbel_noise,
    hide_spans,
    perplexity,
    told_apart,
    used_entries,
)

_LEAST_FRAMES = 4


class WaveContrast(nn.Module):
    """What is learned beside the encoder: a mask token, a quantiser, and projections of context and codes.

    Args of the constructor:
        encoder: whose frames they are.
        sizes: G, V, E.
    """

    def __init__(self, encoder: Wave, sizes: tuple[int, int, int]) -> None:
        super().__init__()
        groups, entries, width = sizes
        self.mask_token = nn.Parameter(torch.rand(encoder.embed_dim))
        self.quantiser = Quantiser(encoder.spec.stem_width, groups, entries, width)
        self.context = nn.Linear(encoder.embed_dim, width)
        self.code = nn.Linear(width, width)


def wave_encoder(encoder: nn.Module) -> Wave:
    """The same encoder, typed.

    Raises:
        TypeError: it is no wave encoder.
        SpecError: `encoder_does_not_fit`, clips have too few frames to hide some.
    """
    if not isinstance(encoder, Wave):
        raise TypeError("hiding frames of sound needs a wave encoder")
    frames = frames_of(encoder.spec, encoder.facts["samples"])
    if frames < _LEAST_FRAMES:
        text = f"windows of {frames} frames; wav2vec2 needs at least {_LEAST_FRAMES}: raise modality.seconds"
        raise SpecError("encoder_does_not_fit", text, "modality.seconds")
    return encoder


@dataclass(frozen=True)
class Drawn:
    """All that is random in a step.

    Attributes:
        hidden: (B, F) bool.
        distractors: (B, F, K) int64 frames.
        noise: (B, F, G, V) Gumbel.
    """

    hidden: Tensor
    distractors: Tensor
    noise: Tensor

    @classmethod
    def of(cls, nets: Nets, waves: Tensor, seeds: Tensor, spans: tuple[float, int], distractors: int) -> Drawn:
        """For (B, S) waveforms.

        Args:
            nets: with a `WaveContrast` under `head`.
            waves: (B, S).
            seeds: (B,) int64.
            spans: share of the frames in spans, and frames of a span.
            distractors: K.
        """
        frames = frames_of(wave_encoder(nets.encoder).spec, waves.shape[1])
        quantiser = nets.parts["head"].quantiser
        assert isinstance(quantiser, Quantiser)
        hidden = hide_spans(seeds, frames, *spans)
        noise = gumbel_noise(seeds, frames, quantiser.groups, quantiser.size)
        return cls(hidden, draw_distractors(seeds, hidden, distractors), noise)


def wave_loss(nets: Nets, waves: Tensor, drawn: Drawn, temperature: float, diversity: float) -> dict[str, Tensor]:
    """`loss` = contrast + `diversity` x share of unused entries; `contrast_accuracy` and `codes` beside it."""
    encoder, head = wave_encoder(nets.encoder), nets.parts["head"]
    assert isinstance(head, WaveContrast)
    features = encoder.features(waves)
    embedded = encoder.project(features)
    filled = torch.where(drawn.hidden[:, :, None], head.mask_token.to(embedded.dtype), embedded)
    context = head.context(encoder.encode(waves, fill=filled))
    codes = head.quantiser(features, drawn.noise)
    logits = told_apart(context, head.code(codes.vectors), codes.entries, drawn.distractors, temperature)
    weights = drawn.hidden.float()
    surprise = (logits.logsumexp(2) - logits[:, :, 0]) * weights
    found = (logits[:, :, 0] > logits[:, :, 1:].amax(2)) * weights
    # Sums of each clip, gathered: the means are then over the hidden frames of all processes.
    rows = gathered(torch.stack([surprise.sum(1), found.sum(1), weights.sum(1)], 1)).sum(0)
    used = gathered(used_entries(codes.shares, drawn.hidden)).sum(0) / rows[2]
    entries = perplexity(used)
    total = head.quantiser.groups * head.quantiser.size
    loss = rows[0] / rows[2] + diversity * (total - entries) / total
    return {"loss": loss, "contrast_accuracy": (rows[1] / rows[2]).detach(), "codes": entries.detach()}
