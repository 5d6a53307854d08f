"""Continuations that a causal trunk writes. Needs torch.

B rows, T token slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Tokens
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.transformer import Transformer
from ssl_core.rng import mix, uniform
from ssl_core.sampling import Sampling

_DRAW = 301
"""Number of the random stream."""


@torch.no_grad()
def continuations(
    encoder: Encoder, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Tensor, end: int | None = None
) -> list[list[int]]:
    """What comes after each prompt: at most `max_tokens` ids, the end entry among them where it was written.

    A row is a function of its prompt and its seed, whatever stands beside it. The model sees as many tokens as its
    training rows had (`facts["max_length"]`): of a longer prompt the last ones, and where a continuation outgrows them
    it goes on from the last half.

    Args:
        encoder: a Transformer, causal, whose output layer is its token embedding, in evaluation mode.
        prompts: B lists of token ids, none empty.
        sampling: how to draw.
        seeds: (B,) int64.
        end: the entry that ends a text; None where there is none.

    Raises:
        TypeError: the encoder is no Transformer.
        ValueError: it sees what comes after, or a prompt is empty.
    """
    if not isinstance(encoder, Transformer):
        raise TypeError("a continuation needs a Transformer")
    if encoder.spec.attention != "causal":
        raise ValueError("a continuation needs a causal encoder")
    if not all(prompts):
        raise ValueError("a prompt is empty")
    if not prompts:
        return []
    context = int(encoder.facts["max_length"])
    seen = [list(prompt)[-context:] for prompt in prompts]
    device = encoder.token.weight.device
    lengths = torch.tensor([len(prompt) for prompt in seen], device=device)
    ids = lengths.new_zeros(len(seen), int(lengths.max()) + sampling.max_tokens)
    for row, prompt in enumerate(seen):
        ids[row, : len(prompt)] = lengths.new_tensor(prompt)
    reader = _reader(encoder, context)
    done = torch.zeros_like(lengths, dtype=torch.bool)
    for place in range(int(lengths.min()), ids.shape[1]):
        written = place - lengths
        chosen = pick(F.linear(reader(ids[:, :place]), encoder.token.weight), sampling, mix(seeds.to(device), written))
        # A row whose prompt goes on reads it; the others write.
        ids[:, place] = torch.where(written < 0, ids[:, place], chosen)
        done |= written + 1 >= sampling.max_tokens
        if end is not None:
            done |= (written >= 0) & (chosen == end)
        if bool(done.all()):
            break
    rows = ((row[len(prompt) :][: sampling.max_tokens]) for row, prompt in zip(ids.tolist(), seen, strict=True))
    return [row if end not in row else row[: row.index(end) + 1] for row in rows]


def pick(logits: Tensor, sampling: Sampling, seeds: Tensor) -> Tensor:
    """(B,) int64, a token for each row of (B, V) logits: the likeliest, or drawn with its (B,) seed."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = distribution(logits, sampling)
    reached = probabilities.cumsum(-1)
    drawn = uniform(seeds, 1, _DRAW).double() * reached[:, -1:]
    return torch.searchsorted(reached, drawn, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """(B, V) float64 probabilities that `pick` draws with; `sampling.temperature` is not 0.

    `top_p`: "the smallest set of top candidates whose probability exceeds p" (Holtzman et al. 2019, The Curious Case of
    Neural Text Degeneration, https://arxiv.org/abs/1904.09751), at least one.
    """
    scaled = logits.double() / sampling.temperature
    if 0 < sampling.top_k < scaled.shape[1]:
        least = scaled.topk(sampling.top_k).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, float("-inf"))
    probabilities = scaled.softmax(-1)
    if sampling.top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ranked.cumsum(-1) - ranked
        outside = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= sampling.top_p)
        probabilities = probabilities.masked_fill(outside, 0.0)
    return probabilities / probabilities.sum(-1, keepdim=True)


def _reader(encoder: Transformer, context: int) -> Callable[[Tensor], Tensor]:
    """What gives (B, D), the output at the last of (B, T) ids, each call with more of the same rows.

    Keys and values are kept from call to call where the trunk can go a token at a time.
    """
    if encoder.spec.window or encoder.spec.token_dropout:
        return lambda ids: _whole(encoder, ids[:, -context:])
    pasts, start, read = encoder.pasts(), 0, 0

    def step(ids: Tensor) -> Tensor:
        nonlocal pasts, start, read
        if ids.shape[1] - start > context:
            # Positions count from the first token seen, so that a moved window is read anew.
            start = read = ids.shape[1] - max(1, context // 2)
            pasts = encoder.pasts()
        hidden = encoder.step(ids[:, read:], pasts)
        read = ids.shape[1]
        return hidden[:, -1]

    return step


def _whole(encoder: Transformer, ids: Tensor) -> Tensor:
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    return encoder.encode(Tokens(ids, torch.zeros_like(ids, dtype=torch.int32), positions))[:, -1]


def openings(tokens: Tokens, most: int) -> list[tuple[list[int], list[int]]]:
    """The first half of each row's longest document as a prompt, and at most `most` ids that follow there.

    A row whose documents are all single tokens has none.
    """
    found = []
    for ids, segments in zip(tokens.ids, tokens.segments, strict=True):
        sizes = segments[segments >= 0].long().bincount()
        if len(sizes) and int(sizes.max()) > 1:
            document = ids[segments == int(sizes.argmax())].tolist()
            half = len(document) // 2
            found.append((document[:half], document[half:][:most]))
    return found
