"""COCO's `annotations.json` of an archive: which objects its pictures hold (https://cocodataset.org/#format-data).

Read of it: `images` (`id`, `file_name`; `width` and `height` where they stand), `categories` (`id`, `name`) and
`annotations` (`image_id`, `category_id`, `bbox` in pixels; those with `iscrowd` name no single object and are left
out). What is wrong with one entry is told with its number in its list, from 1; everything else is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ssl_core.data.archives import MAX_MEMBER_BYTES, Member
from ssl_core.errors import DataError
from ssl_core.targets.boxes import MAX_BOXES, checked

NAMES = ("annotations.json", "_annotations.coco.json")
Fault = tuple[tuple[str, int], DataError]


@dataclass
class Listed:
    """A picture of the list.

    Attributes:
        where: the file and its number in `images`.
        name: its file, as the list has it.
        size: width and height in pixels, where the list says them.
        objects: number in `annotations`, category and box of each.
    """

    where: tuple[str, int]
    name: str
    size: tuple[int, int] | None
    objects: list[tuple[int, str, Any]] = field(default_factory=list)


@dataclass
class Annotations:
    """What an archive says of the objects in its pictures.

    Attributes:
        file: its path in the archive.
        pictures: by path below the file's folder, or by file name alone.
        faults: entries that cannot be used, and why.
    """

    file: str
    pictures: dict[str, Listed] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def of(self, path: str) -> Listed | None:
        """The entry of a file of the archive, taken away: by its path from the list's folder on, else by less of it."""
        folder = self.file.rpartition("/")[0]
        inside = path.removeprefix(f"{folder}/") if folder else path
        parts = inside.split("/")
        names = ["/".join(parts[at:]) for at in range(len(parts))]
        return next((self.pictures.pop(name) for name in names if name in self.pictures), None)

    def objects(self, listed: Listed, width: int, height: int) -> tuple[list[dict[str, Any]], list[Fault]]:
        """The picture's objects, and the faults of those that cannot be used.

        Raises:
            DataError: `invalid_boxes`, the list is of a picture of another size, or of too many objects.
        """
        if listed.size is not None and listed.size != (width, height):
            told = " x ".join(map(str, listed.size))
            raise DataError("invalid_boxes", f"the picture is {width} x {height}, and {self.file} says {told}")
        if len(listed.objects) > MAX_BOXES:
            message = f"{len(listed.objects):,} objects in one picture; at most {MAX_BOXES:,}"
            raise DataError("invalid_boxes", message)
        made, faults = [], []
        for number, label, box in listed.objects:
            try:
                made.append(checked({"label": label, "box": box}, width, height))
            except DataError as error:
                message = f"annotation {number}, of {listed.name[:200]}: {error.message}"
                faults.append(((self.file, number), DataError(error.code, message)))
        return made, faults


def read(member: Member) -> Annotations:
    """Parse a list.

    Raises:
        DataError: `file_too_large`; `invalid_annotations`, it is no such JSON; `param` is the file.
    """
    if member.size > MAX_MEMBER_BYTES:
        raise DataError("file_too_large", f"{member.name} has at most {MAX_MEMBER_BYTES >> 20} MB", member.name)
    try:
        told = json.loads(member.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError("invalid_annotations", f"not JSON in UTF-8: {str(error)[:200]}", member.name) from error
    needed = ("images", "annotations", "categories")
    if not isinstance(told, dict) or any(not isinstance(told.get(name), list) for name in needed):
        message = f"needed: an object with the lists {', '.join(needed)}, as COCO has them"
        raise DataError("invalid_annotations", message, member.name)
    found = Annotations(member.name)
    by_id = _pictures(told["images"], found)
    names = _categories(told["categories"], found)
    seen: set[int | str] = set()
    for number, entry in enumerate(told["annotations"], 1):
        try:
            _place(number, entry, (by_id, names), seen)
        except DataError as error:
            found.faults.append(((member.name, number), error))
    return found


def _pictures(entries: list[Any], found: Annotations) -> dict[Any, Listed]:
    by_id: dict[Any, Listed] = {}
    for number, entry in enumerate(entries, 1):
        try:
            id, name = _fields(entry, "image", "id", "file_name")
            if not isinstance(name, str) or not name:
                raise DataError("invalid_annotations", f"image {number}: its file_name is no text")
            name = name.removeprefix("./")
            if id in by_id or name in found.pictures:
                raise DataError("invalid_annotations", f"image {number}: its id or file_name stands there before")
            size = entry.get("width"), entry.get("height")
            whole = all(isinstance(side, int) and not isinstance(side, bool) for side in size)
            by_id[id] = found.pictures[name] = Listed((found.file, number), name, size if whole else None)
        except DataError as error:
            found.faults.append(((found.file, number), error))
    return by_id


def _categories(entries: list[Any], found: Annotations) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for number, entry in enumerate(entries, 1):
        try:
            id, name = _fields(entry, "category", "id", "name")
            if not isinstance(name, str) or not name or id in names:
                raise DataError("invalid_annotations", f"category {number}: its name is no text, or its id is not new")
            names[id] = name
        except DataError as error:
            found.faults.append(((found.file, number), error))
    return names


def _place(number: int, entry: Any, known: tuple[dict[Any, Listed], dict[Any, str]], seen: set[int | str]) -> None:
    """Put an annotation to its picture. Raises DataError."""
    by_id, names = known
    image, category, box = _fields(entry, "annotation", "image_id", "category_id", "bbox")
    own = entry.get("id")
    if isinstance(own, int | str):
        if own in seen:
            raise DataError("invalid_boxes", f"annotation {number}: its id {own!r} stands there before")
        seen.add(own)
    if image not in by_id:
        raise DataError("invalid_boxes", f"annotation {number}: no image has the id {image!r}")
    if category not in names:
        listed = ", ".join(repr(id) for id in list(names)[:20])
        message = f"annotation {number}: no category has the id {category!r}; there are {listed}"
        raise DataError("invalid_boxes", message)
    if not entry.get("iscrowd"):
        by_id[image].objects.append((number, names[category], box))


def _fields(entry: Any, kind: str, *names: str) -> list[Any]:
    """The values of fields that must stand there; the first is an id. Raises DataError `invalid_annotations`."""
    missing = [name for name in names if not isinstance(entry, dict) or name not in entry]
    if missing:
        raise DataError("invalid_annotations", f"an {kind} needs {', '.join(names)}; it lacks {', '.join(missing)}")
    for name in names:
        if name.endswith("id") and (isinstance(entry[name], bool) or not isinstance(entry[name], int | str)):
            raise DataError("invalid_annotations", f"{kind}: {name} is a whole number or a text")
    return [entry[name] for name in names]
