"""What models are asked about: words of the command line, lines of a file, pictures and sounds as data URIs."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundwork.commands.draw import clip
from groundwork.commands.failures import Failure
from groundwork.rest.inputs import media_type

MOST_ITEMS, MOST_CHARACTERS = 256, 16 * 2**20
"""Of one request; the server takes 2,048 items and 32 MiB."""
_TEXTS = frozenset({".txt", ".text", ".md", "", ".csv", ".fasta", ".fa"})


@dataclass(frozen=True)
class Item:
    """What is sent, and what a person knows it by."""

    sent: Any
    shown: str


def gather(texts: list[str], files: list[str], modality: str) -> list[Item]:
    """Everything that was given, in its order; a chain of a protein model is sent as one.

    Raises:
        Failure: nothing was given, or a file cannot be read or is of a kind that no model reads.
    """
    column = "protein" if modality == "protein" else "text"
    items = [_text(text, column) for text in texts]
    for file in files:
        items += _of_file(file, column)
    if not items:
        raise Failure("there is nothing to ask about", "give texts, --file FILE, or --dataset DATASET")
    return items


def batches(items: list[Item]) -> Iterator[list[Item]]:
    """As many as fit into one request."""
    batch: list[Item] = []
    size = 0
    for item in items:
        length = len(json.dumps(item.sent))
        if batch and (len(batch) == MOST_ITEMS or size + length > MOST_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch


def media(file: Path) -> dict[str, str]:
    """A picture or sound as an item. Raises Failure."""
    kind = media_type(file.name)
    column = kind.partition("/")[0]
    if column not in ("image", "audio"):
        raise Failure(f"{file} is no picture, sound or text by its name", "give .png, .jpg, .wav, .txt or .jsonl")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror or error}", "check the path") from error
    return {column: f"data:{kind};base64,{base64.b64encode(content).decode()}"}


def _of_file(name: str, column: str) -> list[Item]:
    ending = Path(name).suffix.lower()
    if name != "-" and ending not in _TEXTS | {".jsonl"}:
        return [Item(media(Path(name)), name)]
    lines = [(number, line) for number, line in enumerate(_read(name).splitlines(), 1) if line.strip()]
    if not lines:
        raise Failure(f"{name} has no lines", "write one text a line")
    if ending == ".jsonl":
        return [_item(line, name, number) for number, line in lines]
    return [_text(line, column) for _, line in lines]


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{name} cannot be read: {error.strerror or error}", "check the path") from error
    except UnicodeDecodeError as error:
        raise Failure(f"{name} is no UTF-8 text", "give a text with one input a line") from error


def _item(line: str, name: str, number: int) -> Item:
    try:
        return Item(json.loads(line), clip(line, 60))
    except ValueError as error:
        raise Failure(f"{name} line {number} is no JSON: {error}", 'write lines such as {"text": "…"}') from error


def _text(text: str, column: str) -> Item:
    return Item(text if column == "text" else {column: text}, clip(text, 60))
