"""Prepared pairs of pictures and texts: `image_shards` in the folder `image`, `text_shards` in `text`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_core.data import captions, image_shards, rows, shards, text_shards
from ssl_core.data.image_shards import ImageSource
from ssl_core.data.token_shards import TokenSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.modalities.base import Raw, Unit
    from ssl_core.modalities.image import ImageModality
    from ssl_core.modalities.text import TextModality


def prepare(
    settings: tuple[ImageModality, TextModality],
    dataset: Path,
    out: Path,
    given: Path | None,
    progress: Callable[[int, int], None],
    frame: captions.Frame,
) -> None:
    """Write both sides, `tokenizer.json` and `meta.json` to `out`.

    Raises:
        DataError: `empty_dataset`; a picture that ingest accepted but does not decode names its row.
        SpecError: `invalid_tokenizer`, where a given one is not usable.
    """
    pictures, texts = settings
    measured = rows.profile(dataset)
    out.mkdir(parents=True, exist_ok=True)
    text_shards.prepare(texts, dataset, out / "text", given, lambda done, total: progress(done // 2, total), frame)
    image_shards.prepare(
        pictures,
        dataset,
        out / "image",
        lambda done, total: progress((total + done) // 2, total),
    )
    shutil.copyfile(out / "text" / "tokenizer.json", out / "tokenizer.json")
    known = {side: shards.read_meta(out / side)["facts"] for side in ("image", "text")}
    shards.write_meta(out, {"modality": "image_text", "classes": measured["classes"], "facts": known})


class PairSource:
    """Prepared pairs, opened. Attributes as in `ssl_core.modalities.base.Source`; facts: `image` and `text`, each as
    its own modality has them."""

    def __init__(self, prepared: Path, max_length: int) -> None:
        self.facts: dict[str, Any] = shards.read_meta(prepared)["facts"]
        self._image, self._text = ImageSource(prepared / "image"), TokenSource(prepared / "text", max_length)
        self.classes, self.labels = self._image.classes, self._image.labels

    def count(self, unit: Unit) -> int:
        """Pairs, whatever the unit."""
        return self._image.count(unit)

    def lengths(self) -> NDArray[np.int64]:
        """(N,) ones: what a batch holds must not depend on how long its captions are."""
        return self._image.lengths()

    def read(self, unit: Unit, indices: NDArray[np.int64], seeds: NDArray[np.int64] | None = None) -> Raw:
        """What both sides read, as `image.pixels`, `text.ids` and so on; texts always from their beginning."""
        sides = {"image": self._image.read("document", indices), "text": self._text.read("document", indices)}
        return {f"{side}.{name}": values for side, raw in sides.items() for name, values in raw.items()}
