"""Another text that a text is to become: its translation, its summary, its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ssl_core.errors import DataError
from ssl_core.targets.base import Tally, Target, Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.modalities.base import Modality

PREVIEW_CHARACTERS = 1000
_ROWS = 2048


class Translation(Target):
    """`translation`: a text, not empty; `null` or an empty cell is none."""

    name: Literal["translation"] = "translation"
    columns: ClassVar[tuple[str, ...]] = ("translation",)
    is_text: ClassVar[bool] = True
    # A `target` of something else than a `source` may be anything: a class, a number.
    beside: ClassVar[dict[str, str]] = {"target": "source"}

    @classmethod
    def usual(cls, modality: type[Modality]) -> dict[str, tuple[str, ...]]:
        """Of texts only."""
        return {"translation": ("translation", "target", "target_text")} if modality.part == "word" else {}

    @classmethod
    def read(cls, values: Mapping[str, Any], content: Mapping[str, bytes], modality: type[Modality]) -> Any:
        """The text, as contents are cleaned; None where there is none.

        Raises:
            DataError: `invalid_translation`, or what is said of a text.
        """
        from ssl_core.data import texts

        given = values.get("translation")
        if given is None or given == "":
            return None
        if not isinstance(given, str):
            raise DataError("invalid_translation", f"the translation is a {type(given).__name__}; a text is needed")
        try:
            return texts.clean(given).decode("utf-8")
        except DataError as error:
            raise DataError(error.code, f"the translation: {error.message}", error.param) from error

    @classmethod
    def arrow(cls) -> Any:
        """A string."""
        import pyarrow

        return pyarrow.large_string()

    @classmethod
    def size(cls, value: Any) -> int:
        """A byte or more a character."""
        return 0 if value is None else len(value)

    @classmethod
    def tally(cls) -> Tally:
        """Counts rows and characters."""
        return _Counts()

    @classmethod
    def preview(cls, value: Any) -> Any:
        """Its beginning."""
        return None if value is None else value[:PREVIEW_CHARACTERS]

    @classmethod
    def write(cls, dataset: Path, out: Path, modality: Modality) -> None:
        """Its tokens by the content's tokenizer, and the text itself, which translations are compared with."""
        from ssl_core.data import ragged

        ragged.write(out, "translation", "int32", _encoded(dataset, out))
        ragged.write(out, "reference", "uint8", _spelled(dataset))
        (out / "translation.json").write_text("{}", encoding="utf-8")

    @classmethod
    def open(cls, prepared: Path, classes: list[str] | None = None) -> Targets:
        """`translation` (B, C) int64 tokens, and `reference` (B, L) int64 the text as UTF-8; -1 behind both."""
        return _Shards(prepared)


def _values(dataset: Path) -> Iterator[list[str | None]]:
    from ssl_core.data import rows

    for batch in rows.batches(dataset, ["translation"], _ROWS):
        yield batch["translation"]


def _encoded(dataset: Path, out: Path) -> Iterator[NDArray[np.int32]]:
    import numpy as np

    from ssl_core.data import tokenizer

    codec = tokenizer.load(out / "tokenizer.json")
    for values in _values(dataset):
        known = iter(tokenizer.encode(codec, [value for value in values if value is not None]))
        for value in values:
            yield np.array([] if value is None else next(known), dtype=np.int32)


def _spelled(dataset: Path) -> Iterator[NDArray[np.uint8]]:
    import numpy as np

    for values in _values(dataset):
        for value in values:
            yield np.frombuffer((value or "").encode("utf-8"), dtype=np.uint8)


class _Shards:
    """Attributes and methods as in `ssl_core.targets.base.Targets`."""

    def __init__(self, prepared: Path) -> None:
        from ssl_core.data import ragged

        self.classes: list[str] = []
        self._tokens = ragged.Ragged(prepared, "translation", "int32")
        self._texts = ragged.Ragged(prepared, "reference", "uint8")

    def groups(self) -> NDArray[np.int64]:
        import numpy as np

        return np.where(self._tokens.lengths() > 0, 0, -1)

    def read(self, indices: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        # No UTF-8 has a byte 255, so that the fill can be told apart.
        texts = self._texts.read(indices, 255).astype("int64")
        texts[texts == 255] = -1
        return {"translation": self._tokens.read(indices, -1).astype("int64"), "reference": texts}


class _Counts:
    """Rows and characters."""

    def __init__(self) -> None:
        self._rows, self._characters, self._most = 0, 0, 0

    def add(self, value: Any) -> None:
        if value is None:
            return
        self._rows += 1
        self._characters += len(value)
        self._most = max(self._most, len(value))

    def summary(self) -> dict[str, Any]:
        if self._rows == 0:
            return {"rows": 0}
        return {"rows": self._rows, "numbers": {"mean": self._characters / self._rows, "max": float(self._most)}}
