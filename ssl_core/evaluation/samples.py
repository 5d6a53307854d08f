"""Things worth looking at that a finished run leaves behind: what it saw, what it filled in. Needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core.batch import Inputs
from ssl_core.context import RunContext

if TYPE_CHECKING:
    import PIL.Image

_SIDE = 64
"""Pixels that a small picture is blown up to, about."""


class Show:
    """Writes samples into the run's folder and tells of them.

    Args:
        context: the run.
        prepared: the pool's prepared folder, for its tokenizer.
        step: when.
    """

    def __init__(self, context: RunContext, prepared: Path, step: int) -> None:
        self._context, self.prepared, self._step = context, prepared, step
        self._codec: Any = None

    def words(self, ids: Tensor | list[int]) -> str:
        """What (T,) token ids say."""
        if self._codec is None:
            from tokenizers import Tokenizer

            self._codec = Tokenizer.from_file(str(self.prepared / "tokenizer.json"))
        return str(self._codec.decode(ids if isinstance(ids, list) else ids.tolist(), skip_special_tokens=False))

    def filled(self, ids: Tensor, guesses: dict[int, int]) -> str:
        """One line: what (T,) token ids say, with `[true > guessed]` at the places of `guesses`."""
        parts, start = [], 0
        for place in [*sorted(guesses), len(ids)]:
            parts.append(self.words(ids[start:place]))
            if place < len(ids):
                truth, guess = self.words(ids[place : place + 1]), self.words(torch.tensor([guesses[place]]))
                parts.append(f"[{truth.strip()} > {guess.strip()}]")
            start = place + 1
        return " ".join(" ".join(part for part in parts if part).split())

    def text(self, name: str, lines: list[str], caption: str) -> None:
        """Keep a text: each of `lines` on one line, with `⏎` where a document breaks its own."""
        told = "\n".join("⏎".join(line.splitlines()) for line in lines)
        (self._folder() / f"{name}.txt").write_text(told, encoding="utf-8")
        self._tell(name, f"{name}.txt", "text/plain", caption)

    def pictures(self, name: str, columns: list[Tensor], caption: str) -> None:
        """Keep a table of pictures, one row a sample.

        Args:
            name: of the sample.
            columns: each (rows, C, H, W), normalised or not: the whole table is stretched to the range of a picture. C
                is 1 or 3; H and W may differ between columns.
            caption: what the columns are.
        """
        from PIL import Image

        low = min(float(column.min()) for column in columns)
        high = max(float(column.max()) for column in columns)
        height = max(column.shape[2] for column in columns)
        strips = [_strip((column - low) / max(1e-9, high - low), height) for column in columns]
        table = np.concatenate(strips, axis=1)
        image = Image.fromarray(table)
        scale = max(1, _SIDE // height)
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        self.image(name, image, caption)

    def image(self, name: str, image: PIL.Image.Image, caption: str) -> None:
        """Keep a picture."""
        image.save(self._folder() / f"{name}.png")
        self._tell(name, f"{name}.png", "image/png", caption)

    def views(self, views: tuple[Inputs, ...]) -> None:
        """Keep what the objective saw of a few samples, where it saw pictures."""
        seen = [view for view in views if isinstance(view, Tensor) and view.ndim == 4 and view.shape[1] in (1, 3)]
        if seen:
            self.pictures("views", seen, "each row one sample of the pool, each column a view that the objective saw")

    def _folder(self) -> Path:
        folder = self._context.workdir / "samples"
        folder.mkdir(exist_ok=True)
        return folder

    def _tell(self, name: str, file: str, kind: str, caption: str) -> None:
        path = f"samples/{file}"
        self._context.emit("sample", step=self._step, name=name, path=path, media_type=kind, caption=caption)


def _strip(column: Tensor, height: int) -> NDArray[np.uint8]:
    """(rows * height, width, 3) pictures (rows, C, H, W) of values 0 to 1 below each other, small ones centred."""
    rows, channels, tall, wide = column.shape
    cell = torch.ones(rows, 3, height, wide)
    top = (height - tall) // 2
    cell[:, :, top : top + tall] = column.float().cpu().expand(rows, 3 if channels == 1 else channels, tall, wide)
    stacked = (cell * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return stacked.reshape(rows * height, wide, 3).numpy()
