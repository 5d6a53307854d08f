"""A class for each word of a text or each residue of a chain, some of them left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ssl_core.errors import DataError
from ssl_core.targets.base import Tally, Target, Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.modalities.base import Modality

MAX_CLASSES = 10_000
MAX_TAG_CHARACTERS = 200
PREVIEW_TAGS = 1000
_ROWS = 1024


class Tags(Target):
    """`tags` with an optional `mask`: strings or lists of one entry for each part of the row's content.

    A residue's tag is a letter of a string or an entry of a list; a word's is an entry of a list or, in a cell of a
    table, one of several between spaces. Words are what white space separates. A `null` entry, and one whose mask is 0,
    is no tag: it takes no part in loss and score.
    """

    name: Literal["tags"] = "tags"
    columns: ClassVar[tuple[str, ...]] = ("tags", "mask")

    @classmethod
    def usual(cls, modality: type[Modality]) -> dict[str, tuple[str, ...]]:
        """`labels` are tags of a protein only: of a text they may as well be its topics."""
        if not modality.part:
            return {}
        if modality.part == "residue":
            return {"tags": ("tags", "labels", "residue_labels"), "mask": ("mask", "resolved")}
        return {"tags": ("tags", "ner_tags", "pos_tags"), "mask": ("tag_mask",)}

    @classmethod
    def read(cls, values: Mapping[str, Any], content: Mapping[str, bytes], modality: type[Modality]) -> Any:
        """(parts) strings and None; None where the row has no tag.

        Raises:
            DataError: `invalid_tags`, `tags_mismatch`.
        """
        given = values.get("tags")
        if given is None or given == "":
            return None
        part, parts = modality.part, modality.parts(content)
        tags = [_tag(value, place) for place, value in enumerate(_entries(given, "tags", part), 1)]
        if len(tags) != parts:
            raise DataError("tags_mismatch", f"{len(tags):,} tags for {parts:,} {part}s; there is one for each")
        mask = values.get("mask")
        if mask is not None and mask != "":
            kept = [_flag(value, place) for place, value in enumerate(_entries(mask, "mask", part), 1)]
            if len(kept) != parts:
                message = f"a mask of {len(kept):,} for {parts:,} {part}s; there is one entry for each"
                raise DataError("tags_mismatch", message)
            tags = [tag if keep else None for tag, keep in zip(tags, kept, strict=True)]
        return None if all(tag is None for tag in tags) else tags

    @classmethod
    def arrow(cls) -> Any:
        """A list of strings."""
        import pyarrow

        return pyarrow.list_(pyarrow.string())

    @classmethod
    def size(cls, value: Any) -> int:
        """A few bytes a tag."""
        return 0 if value is None else 4 * len(value)

    @classmethod
    def named(cls, value: Any) -> set[str]:
        """The tags of its parts."""
        return set(value or ()) - {None}

    @classmethod
    def tally(cls) -> Tally:
        """Counts rows, and tags by class."""
        return _Counts()

    @classmethod
    def preview(cls, value: Any) -> Any:
        """The first thousand; a string where every tag is a letter, `.` for none."""
        if value is None:
            return None
        shown = value[:PREVIEW_TAGS]
        letters = all(tag is None or len(tag) == 1 for tag in shown)
        return "".join(tag or "." for tag in shown) if letters else shown

    @classmethod
    def write(cls, dataset: Path, out: Path, modality: Modality) -> None:
        """Class numbers at the first token of each part, -1 elsewhere; the classes in `tags.json`."""
        from ssl_core.data import ragged, rows

        classes = rows.profile(dataset)["targets"][cls.model_fields["name"].default]["classes"]
        ragged.write(out, "tags", "int16", _numbered(dataset, out, modality, classes))
        (out / "tags.json").write_text(json.dumps({"classes": classes}, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def open(cls, prepared: Path, classes: list[str] | None = None) -> Targets:
        """`tags` (B, L) int64: class of what begins at each token of the document, -1 = none."""
        return _TagShards(prepared, classes)


def _numbered(dataset: Path, out: Path, modality: Modality, classes: list[str]) -> Iterator[NDArray[np.int16]]:
    import numpy as np

    from ssl_core.data import rows

    (column,) = modality.columns
    index: dict[str | None, int] = {None: -1, **{name: number for number, name in enumerate(classes)}}
    for batch in rows.batches(dataset, [column, "tags"], _ROWS):
        places = modality.first_tokens(batch[column], out)
        for tags, at in zip(batch["tags"], places, strict=True):
            row = np.full(int(at.max(initial=-1)) + 1 if tags else 0, -1, dtype=np.int16)
            if tags:
                row[at] = [index[tag] for tag in tags]
            yield row


class _TagShards:
    """Attributes and methods as in `ssl_core.targets.base.Targets`."""

    def __init__(self, prepared: Path, classes: list[str] | None) -> None:
        import numpy as np

        from ssl_core.data import ragged

        mine: list[str] = json.loads((prepared / "tags.json").read_text(encoding="utf-8"))["classes"]
        self.classes = mine if classes is None else classes
        known = {name: number for number, name in enumerate(self.classes)}
        # The last entry is what -1 points at.
        self._renumbered = np.array([*(known.get(name, -1) for name in mine), -1], dtype=np.int64)
        self._rows = ragged.Ragged(prepared, "tags", "int16")

    def groups(self) -> NDArray[np.int64]:
        import numpy as np

        return np.where(self._rows.lengths() > 0, 0, -1)

    def read(self, indices: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        return {"tags": self._renumbered[self._rows.read(indices, -1)]}


class _Counts:
    """Rows, and tags by class."""

    def __init__(self) -> None:
        self._rows = 0
        self._counts: Counter[str] = Counter()

    def add(self, value: Any) -> None:
        if value is None:
            return
        self._rows += 1
        self._counts.update(tag for tag in value if tag is not None)
        if len(self._counts) > MAX_CLASSES:
            raise DataError("too_many_classes", f"more than {MAX_CLASSES:,} different tags", "columns.tags")

    def summary(self) -> dict[str, Any]:
        classes = sorted(self._counts)
        counts = {name: self._counts[name] for name in classes}
        return {"rows": self._rows, "classes": classes, "class_counts": counts}


def _entries(value: Any, what: str, part: str) -> list[Any]:
    if isinstance(value, str):
        return list(value) if part == "residue" else value.split()
    if isinstance(value, list):
        return value
    kind = type(value).__name__
    raise DataError("invalid_tags", f"{what} are a string or a list with one entry for each {part}, not a {kind}")


def _tag(value: Any, place: int) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        kind = type(value).__name__
        raise DataError("invalid_tags", f"tag {place} is a {kind}; allowed: strings, whole numbers, null")
    tag = str(value)
    if not tag or len(tag) > MAX_TAG_CHARACTERS or "\x00" in tag:
        raise DataError("invalid_tags", f"tag {place} must have 1 to {MAX_TAG_CHARACTERS} characters and no NUL")
    try:
        tag.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError("encoding_error", f"tag {place} is not valid UTF-8") from error
    return tag


def _flag(value: Any, place: int) -> bool:
    if value in (0, "0"):
        return False
    if value in (1, "1"):
        return True
    raise DataError("invalid_tags", f"mask entry {place} is {str(value)[:20]!r}; allowed: 1 (a tag) and 0 (none)")
