"""Beam search: the likeliest text that an encoder and a decoder can be found to write. Needs torch.

B sentences, K beams of each, V vocabulary, T tokens of the source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssl_core.encoders.decoder import Generation

Step = Callable[[Tensor, Generation], Tensor]
"""(N, V) logits of what comes after (N, 1) ids."""


@dataclass(frozen=True)
class Search:
    """How to look.

    Attributes:
        beams: K; 1 = always the likeliest token.
        length_penalty: a text's score is its log-likelihood divided by its length, the end among it, to this power:
            above 0 longer texts win. 1 is the mean of its tokens (Bahdanau's and transformers' `length_penalty`); it is
            not the formula of Wu et al. 2016.
        most: tokens to write, at most.
        end: the entry that a text begins and ends with.
    """

    beams: int
    length_penalty: float
    most: int
    end: int


@dataclass
class _Found:
    """The best finished texts of one sentence."""

    search: Search
    texts: list[tuple[float, list[int]]] = field(default_factory=list)

    def add(self, likelihood: float, ids: list[int]) -> None:
        """Keep it if it is among the best K."""
        self.texts.append((likelihood / len(ids) ** self.search.length_penalty, ids))
        self.texts.sort(key=lambda each: -each[0])
        del self.texts[self.search.beams :]

    def settled(self, best: float, length: int) -> bool:
        """Whether nothing that goes on can be expected to be better: judged at the present length."""
        full = len(self.texts) == self.search.beams
        return full and self.texts[-1][0] >= best / length**self.search.length_penalty


@torch.no_grad()
def search(step: Step, generation: Generation, count: int, how: Search, device: torch.device) -> list[list[int]]:
    """The best text of each of B sentences, its end not among it.

    At each step the 2 K likeliest ways on of a sentence are looked at: those that end and are among the first K are
    kept as finished, the first K that do not end go on. A sentence is over when K are finished and the best that goes
    on would not come in among them (transformers' `early_stopping=False`).

    Args:
        step: of the decoder.
        generation: one row a sentence; it is taken over.
        count: B.
        how: see `Search`.
        device: of the decoder.
    """
    beams = how.beams
    found = [_Found(how) for _ in range(count)]
    live = torch.arange(count, device=device)
    generation.reorder(live.repeat_interleave(beams))
    scores = torch.full((count, beams), float("-inf"), device=device)
    scores[:, 0] = 0.0
    wrote = torch.empty(count, beams, 0, dtype=torch.int64, device=device)
    last = torch.full((count * beams, 1), how.end, dtype=torch.int64, device=device)
    for length in range(1, how.most + 1):
        logits = step(last, generation).float().log_softmax(-1)
        size = logits.shape[1]
        ways = (scores[:, :, None] + logits.view(len(live), beams, size)).flatten(1)
        likelihoods, order = ways.topk(min(2 * beams, ways.shape[1]), dim=1)
        origin, token = order // size, order % size
        ends = token == how.end
        _keep_finished(found, live, (likelihoods, origin, wrote), ends, beams)
        # The first K that do not end, in their order: of 2 K at most K end, one a beam.
        chosen = torch.sort(ends.to(torch.int8), dim=1, stable=True).indices[:, :beams]
        scores, origin, token = (each.gather(1, chosen) for each in (likelihoods, origin, token))
        wrote = torch.cat([wrote.gather(1, origin[:, :, None].expand(-1, -1, length - 1)), token[:, :, None]], 2)
        over = [found[at].settled(best, length) for at, best in zip(live.tolist(), scores[:, 0].tolist(), strict=True)]
        if length == how.most:
            _keep_unfinished(found, live, scores, wrote, over)
            break
        if all(over):
            break
        going = torch.tensor([not each for each in over], device=device).nonzero().squeeze(1)
        rows = going[:, None] * beams + origin[going]
        live, scores, wrote = live[going], scores[going], wrote[going]
        generation.reorder(rows.flatten())
        last = token[going].reshape(-1, 1)
    return [each.texts[0][1][:-1] if each.texts[0][1][-1] == how.end else each.texts[0][1] for each in found]


def _keep_finished(
    found: list[_Found], live: Tensor, ways: tuple[Tensor, Tensor, Tensor], ends: Tensor, beams: int
) -> None:
    likelihoods, origin, wrote = ways
    for row, place in ends[:, :beams].nonzero().tolist():
        search_ = found[int(live[row])]
        ids = [*wrote[row, origin[row, place]].tolist(), search_.search.end]
        search_.add(float(likelihoods[row, place]), ids)


def _keep_unfinished(found: list[_Found], live: Tensor, scores: Tensor, wrote: Tensor, over: list[bool]) -> None:
    """At the last token what goes on is as good as finished."""
    for row, sentence in enumerate(live.tolist()):
        for beam in range(0 if over[row] else scores.shape[1]):
            found[sentence].add(float(scores[row, beam]), wrote[row, beam].tolist())
