"""What the encoder finds alike: a few documents, each with its nearest others, to look at. Needs torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core.context import RunContext
from ssl_core.modalities.base import Raw, Source

_QUERIES, _NEAREST = 6, 5
_CHARACTERS = 160
_SIDE = 64


def nearest(vectors: Tensor, queries: int = _QUERIES, count: int = _NEAREST) -> NDArray[np.int64]:
    """(queries, 1 + count): evenly spaced rows of (N, D) `vectors`, each followed by its nearest others by cosine."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    chosen = torch.linspace(0, len(vectors) - 1, min(queries, len(vectors))).long()
    similarity = unit[chosen] @ unit.T
    similarity[torch.arange(len(chosen)), chosen] = float("inf")  # itself first, whatever duplicates there are
    found: NDArray[np.int64] = similarity.topk(min(1 + count, len(vectors)), dim=1).indices.numpy()
    return found


def tell(
    context: RunContext, source: Source, prepared: Path, documents: NDArray[np.int64], vectors: Tensor, step: int
) -> None:
    """Write `samples/neighbours.*` and emit it as a `sample`: a text for texts, a picture for pictures.

    Args:
        context: the run.
        source: the pool; `prepared` its folder.
        documents: (N,) which of the pool.
        vectors: (N, D) theirs.
        step: when.
    """
    found = nearest(vectors)
    raw = source.read("document", documents[found.reshape(-1)])
    folder = context.workdir / "samples"
    folder.mkdir(exist_ok=True)
    if "image.pixels" in raw:
        raw = {"pixels": raw["image.pixels"]}  # of pairs the pictures, whose vectors these are
    if "pixels" in raw:
        _picture(raw, found.shape, folder / "neighbours.png")
        name, kind = "neighbours.png", "image/png"
    elif "ids" in raw:
        (folder / "neighbours.txt").write_text(_text(raw, found.shape, prepared), encoding="utf-8")
        name, kind = "neighbours.txt", "text/plain"
    else:
        return
    caption = "first of each row: a sample of the pool; after it the ones the encoder puts nearest"
    context.emit("sample", step=step, name="neighbours", path=f"samples/{name}", media_type=kind, caption=caption)


def _picture(raw: Raw, shape: tuple[int, ...], path: Path) -> None:
    from PIL import Image

    pixels = raw["pixels"]
    rows, columns = shape
    side = pixels.shape[-1]
    tiles = (
        pixels.reshape(rows, columns, -1, side, side).transpose(0, 3, 1, 4, 2).reshape(rows * side, columns * side, -1)
    )
    image = Image.fromarray(np.ascontiguousarray(tiles if tiles.shape[-1] == 3 else tiles[..., 0]))
    scale = max(1, _SIDE // side)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)


def _text(raw: Raw, shape: tuple[int, ...], prepared: Path) -> str:
    from tokenizers import Tokenizer

    codec = Tokenizer.from_file(str(prepared / "tokenizer.json"))
    lengths = raw["lengths"]
    texts = [codec.decode(ids[:length].tolist())[:_CHARACTERS] for ids, length in zip(raw["ids"], lengths, strict=True)]
    lines = []
    for row in range(shape[0]):
        mine = [" ".join(text.split()) for text in texts[row * shape[1] : (row + 1) * shape[1]]]
        lines += [mine[0], *(f"    {text}" for text in mine[1:]), ""]
    return "\n".join(lines)
