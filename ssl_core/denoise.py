"""An encoder that reads corrupted documents and a decoder that writes what was there. Needs torch.

The output layer is the encoder's token table, as in BART, with the table of the sentinels below it where there are any.
B rows, T slots of the source, C slots of what is written, D width, V entries of both tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.batch import Tokens
from ssl_core.beam import Search, search
from ssl_core.corruption import Corrupted
from ssl_core.distributed import mean
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.decoder import Decoder, Generation
from ssl_core.encoders.transformer import Transformer
from ssl_core.layers import initialise
from ssl_core.losses import vocabulary_losses
from ssl_core.nets import Nets


def writer_nets(encoder: Encoder, depth: int, sentinels: int) -> Nets:
    """The encoder with a decoder, and a table of sentinels where there are any.

    Args:
        encoder: a Transformer, as wide as its token table.
        depth: layers of the decoder; 0 = as many as the encoder has.
        sentinels: entries beyond the tokenizer's, one for each span of a document.
    """
    parts: dict[str, nn.Module] = {"decoder": Decoder(encoder.spec, depth)}
    if sentinels:
        parts["sentinels"] = nn.Embedding(sentinels, encoder.spec.width).apply(initialise)
    return Nets(encoder, **parts)


def _parts(nets: Nets) -> tuple[Transformer, Decoder, nn.Embedding | None]:
    encoder, decoder = nets.encoder, nets.parts["decoder"]
    sentinels = dict(nets.parts.items()).get("sentinels")
    if not isinstance(encoder, Transformer) or not isinstance(decoder, Decoder):
        raise TypeError("writing needs a Transformer and a Decoder")
    return encoder, decoder, sentinels if isinstance(sentinels, nn.Embedding) else None


def decoder_of(nets: Nets) -> Decoder:
    """The part named `decoder`."""
    return _parts(nets)[1]


@torch.no_grad()
def translate(nets: Nets, source: Tokens, how: Search) -> list[list[int]]:
    """The best text that beam search finds for each document, one a row; nets of `writer_nets` in evaluation mode."""
    decoder, outputs = decoder_of(nets), table(nets)

    def step(last: Tensor, generation: Generation) -> Tensor:
        return F.linear(decoder.step(embedded(nets, last), generation)[:, -1], outputs)

    generation = decoder.start(read(nets, source), source)
    return search(step, generation, len(source.ids), how, source.ids.device)


def read(nets: Nets, source: Tokens) -> Tensor:
    """(B, T, D) the encoder's output on tokens and sentinels."""
    encoder, _, sentinels = _parts(nets)
    if sentinels is None:
        return encoder.encode(source)
    size = len(encoder.token.weight)
    plain = encoder.patches(replace(source, ids=torch.where(source.ids < size, source.ids, 0)))
    return encoder.encode(source, fill=_marked(plain, source.ids, size, sentinels))


def embedded(nets: Nets, ids: Tensor) -> Tensor:
    """(B, C, D) the decoder's input for ids (B, C) of tokens and sentinels."""
    encoder, _, sentinels = _parts(nets)
    if sentinels is None:
        vectors: Tensor = encoder.token(ids)
        return vectors
    size = len(encoder.token.weight)
    return _marked(encoder.token(torch.where(ids < size, ids, 0)), ids, size, sentinels)


def _marked(plain: Tensor, ids: Tensor, size: int, sentinels: nn.Embedding) -> Tensor:
    marked = sentinels((ids - size).clamp(min=0))
    return torch.where((ids >= size)[:, :, None], marked, plain)


def table(nets: Nets) -> Tensor:
    """(V, D) the output layer."""
    encoder, _, sentinels = _parts(nets)
    return encoder.token.weight if sentinels is None else torch.cat([encoder.token.weight, sentinels.weight])


def denoising_loss(nets: Nets, corrupted: Corrupted) -> tuple[Tensor, Tensor, Tensor]:
    """Mean cross-entropy of all targets, and the shares of all and of the hidden ones that were told (detached)."""
    _, decoder, _ = _parts(nets)
    written, source = corrupted.written, corrupted.source
    hidden = decoder(embedded(nets, written.ids), written, read(nets, source), source).flatten(0, 1)
    targets, weights = corrupted.targets.flatten(), (written.segments >= 0).flatten()
    taken = corrupted.hidden.flatten()
    if hidden.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(weights.all()):
        places = weights.nonzero().squeeze(1)
        hidden, targets, weights, taken = hidden[places], targets[places], weights[places], taken[places]
    losses, hits = vocabulary_losses(hidden, table(nets), None, targets)
    return _mean(losses, weights), _mean(hits, weights), _mean(hits, weights & taken)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Over the places that count. Each process divides by the mean number, so that their mean is that of all."""
    weights = counted.to(values.dtype)
    total: Tensor = (values * weights).sum() / mean(weights.sum()).clamp(min=1e-9)
    return total


@torch.no_grad()
def write(nets: Nets, source: Tokens, end: int, most: int) -> Tensor:
    """(B, most or fewer) the likeliest token at each place, until every row has written its end.

    Args:
        nets: of `writer_nets`, in evaluation mode.
        source: one document a row.
        end: the entry that a row begins with and ends with.
        most: tokens to write.
    """
    _, decoder, _ = _parts(nets)
    outputs = table(nets)
    generation = decoder.start(read(nets, source), source)
    last = torch.full_like(source.ids[:, :1], end)
    done = torch.zeros_like(last, dtype=torch.bool)
    told: list[Tensor] = []
    while len(told) < most and not bool(done.all()):
        hidden = decoder.step(embedded(nets, last), generation)
        last = F.linear(hidden, outputs).argmax(-1)
        told.append(last)
        done |= last == end
    return torch.cat(told, 1)


def spelled(ids: Tensor, size: int, end: int, words: Callable[[Tensor], str]) -> str:
    """What (C,) ids say, up to the end entry, with sentinels as `<0>`, `<1>`, ...

    Args:
        ids: of tokens and sentinels.
        size: of the tokenizer; ids from there on are sentinels.
        end: the entry that ends a document.
        words: what the tokenizer makes of ids.
    """
    listed = ids.tolist()
    listed = listed[: listed.index(end)] if end in listed else listed
    parts: list[str] = []
    start = 0
    for place in [*(at for at, each in enumerate(listed) if each >= size), len(listed)]:
        parts.append(words(ids[start:place]))
        parts += [f"<{listed[place] - size}>"] if place < len(listed) else []
        start = place + 1
    return " ".join(" ".join(parts).split())
