"""What a pretrained language model answers without a task: how a text goes on, what stands at its masked places.

B prompts, V vocabulary, D width. Needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Tokens
from ssl_core.encoders.transformer import Transformer
from ssl_core.errors import DataError
from ssl_core.generation import continuations
from ssl_core.heads import VocabularyHead
from ssl_core.nets import Nets
from ssl_core.rng import mix
from ssl_core.sampling import Sampling

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CANDIDATES = 5
"""Of each masked place."""


@dataclass(frozen=True)
class Prompt:
    """One text, read.

    Attributes:
        ids: what the model sees of it.
        seed: of the draw.
        tokens: that are read.
        cost: its weight in a batch, in tokens.
    """

    ids: list[int]
    seed: int
    tokens: int
    cost: int


class Completer:
    """Reads prompts of a model folder and completes them.

    Args:
        folder: of the model: it holds the tokenizer.
        nets: for fills with the head of masked language modelling.
        framed: whether the tokenizer puts its own entries around a text.
    """

    def __init__(self, folder: Path, nets: Nets, framed: bool) -> None:
        from tokenizers import Tokenizer

        self._codec: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._nets, self._framed = nets, framed
        assert isinstance(nets.encoder, Transformer)
        self._trunk: Transformer = nets.encoder
        self._facts: dict[str, Any] = nets.encoder.facts

    def to_continue(self, items: Sequence[Any], sampling: Sampling, seed: int) -> list[Prompt]:
        """Prompts for `continued`: of one that is longer than the model reads, the end.

        Raises:
            DataError: `empty_input`, `invalid_input`; `param` is `input[<number>]`.
        """
        longest = int(self._facts["max_length"])
        read = [self._ids(item, number)[-longest:] for number, item in enumerate(items)]
        return [Prompt(ids, seed + number, len(ids), len(ids) + sampling.max_tokens) for number, ids in enumerate(read)]

    def to_fill(self, items: Sequence[Any]) -> list[Prompt]:
        """Prompts for `filled`: the beginning of each, as far as the model reads.

        Raises:
            DataError: as `to_continue`; `no_mask`, nothing of what is read is masked.
        """
        longest, mask = int(self._facts["max_length"]), int(self._facts["mask_id"])
        prompts = []
        for number, item in enumerate(items):
            ids = self._ids(item, number)[:longest]
            if mask not in ids:
                name = self._codec.id_to_token(mask)
                text = f"its first {longest:,} tokens hold no {name}; write {name} where something is to be filled in"
                raise DataError("no_mask", text, f"input[{number}]")
            prompts.append(Prompt(ids, 0, len(ids), len(ids)))
        return prompts

    def continued(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[dict[str, Any]]:
        """`{"text": what comes next, "tokens": how many, "finish_reason": "stop" or "length"}` of each.

        `stop`: the model ended the text.
        """
        end = self._facts.get("sep_id")
        device = self._trunk.token.weight.device
        seeds = mix(torch.tensor([prompt.seed for prompt in prompts], device=device), 302)
        wrote = continuations(self._trunk, [prompt.ids for prompt in prompts], sampling, seeds, end)
        answers = []
        for ids in wrote:
            stopped = end is not None and ids[-1:] == [end]
            text = self._codec.decode(ids[:-1] if stopped else ids)
            answers.append({"text": text, "tokens": len(ids), "finish_reason": "stop" if stopped else "length"})
        return answers

    @torch.no_grad()
    def filled(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """`{"text": with every mask filled by its likeliest token, "fills": [{"candidates": [{"token",
        "probability"}, ...]}, one for each mask]}` of each."""
        mask = int(self._facts["mask_id"])
        tokens = _rows([prompt.ids for prompt in prompts], self._trunk.token.weight.device)
        hidden = self._trunk.encode(tokens)
        head = self._nets.parts["vocabulary"]
        assert isinstance(head, VocabularyHead)
        answers = []
        for row, prompt in enumerate(prompts):
            places = [at for at, id in enumerate(prompt.ids) if id == mask]
            logits = F.linear(head(hidden[row, places]), self._trunk.token.weight, head.bias).float()
            chances, best = logits.softmax(1).topk(min(CANDIDATES, logits.shape[1]))
            ids = list(prompt.ids)
            for place, id in zip(places, best[:, 0].tolist(), strict=True):
                ids[place] = id
            answers.append({"text": self._codec.decode(ids), "fills": self._told(best, chances)})
        return answers

    def _told(self, best: Tensor, chances: Tensor) -> list[dict[str, Any]]:
        return [
            {
                "candidates": [
                    {"token": self._codec.decode([id], skip_special_tokens=False), "probability": chance}
                    for id, chance in zip(ids, each, strict=True)
                ]
            }
            for ids, each in zip(best.tolist(), chances.tolist(), strict=True)
        ]

    def _ids(self, item: Any, number: int) -> list[int]:
        where = f"input[{number}]"
        if isinstance(item, Mapping):
            item = next(iter(item.values()), None)
        if isinstance(item, list):
            wrong = next((id for id in item if not 0 <= id < self._facts["vocab_size"]), None)
            if wrong is not None:
                text = f"token {wrong} is not in the vocabulary; allowed: 0 to {self._facts['vocab_size'] - 1}"
                raise DataError("invalid_input", text, where)
            ids = item
        elif isinstance(item, str):
            ids = self._codec.encode(item, add_special_tokens=self._framed).ids
        else:
            raise DataError("wrong_modality", "this model completes texts or chains, not files", where)
        if not ids:
            raise DataError("empty_input", "the input is empty", where)
        return list(ids)


def _rows(documents: list[list[int]], device: torch.device) -> Tokens:
    """One document a row, padded behind."""
    longest = max(map(len, documents))
    ids = torch.zeros(len(documents), longest, dtype=torch.int64)
    segments = torch.full(ids.shape, -1, dtype=torch.int32)
    for row, document in enumerate(documents):
        ids[row, : len(document)] = torch.tensor(document)
        segments[row, : len(document)] = 0
    positions = torch.arange(longest).expand_as(ids)
    return Tokens(ids.to(device), segments.to(device), positions.to(device))
