"""What an uploaded file is, by its bytes; its name decides only between kinds of plain text."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from ssl_core.data.archives import GZIP, ZIP, zip_names
from ssl_core.data.pictures import kind_of
from ssl_core.errors import DataError
from ssl_core.modalities import MODALITIES

_KINDS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet", ".zip", ".tar", ".tar.gz")
OWN = tuple(sorted({ending for one in MODALITIES.values() for ending in one.formats} - {*_KINDS, ".tgz"}))
"""Endings of text files that a modality reads by itself."""
_PACKED = tuple(f"{ending}.gz" for ending in OWN)
ALLOWED = ", ".join((*OWN, *_KINDS[:-1])) + " and .tar.gz"
HEAD = 4096
_NAMES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".txt": "txt"}
# Containers and documents that people upload by mistake; a NUL byte finds the rest of what is not text.
_KNOWN: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF"), (b"%!PS", "PostScript"), (b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"Rar!", "a RAR archive"),
    (b"BZh", "a bzip2 file"), (b"\xfd7zXZ\x00", "an xz file"), (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"ARROW1", "an Arrow file"), (b"FEA1", "a Feather file"), (b"\x93NUMPY", "a NumPy array"), (b"\x89HDF", "HDF5"),
    (b"\x80\x02", "a pickle"), (b"\x80\x03", "a pickle"), (b"\x80\x04", "a pickle"), (b"\x80\x05", "a pickle"),
    (b"\x7fELF", "a program"), (b"MZ", "a program"), (b"OggS", "audio"), (b"fLaC", "audio"), (b"ID3", "audio"),
    (b"RIFF", "audio or video"), (b"\x1a\x45\xdf\xa3", "video"),
)  # fmt: skip
_UTF16_32 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def kind(path: Path, name: str) -> str:
    """The kind of the file at `path`, called `name` by its owner: an ending of `Modality.formats`, less its dot.

    Raises:
        DataError: `empty_file`, `unsupported_type`, `encoding_error`.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise DataError("empty_file", "the file is empty", name)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(ZIP):
        return _inside_zip(path)
    if head.startswith(GZIP):
        return _inside_gzip(path, name)
    if _is_tar(head):
        return "tar"
    return _text_kind(head, name)


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file can be UTF-8 text."""
    return foreign(head) is None and b"\x00" not in head


def foreign(head: bytes) -> str | None:
    """What a file that is neither text nor an archive of ours is, in words."""
    picture = kind_of(head)
    if picture is not None and picture != "BMP":  # two letters; text may begin with BM
        return f"a single {picture} picture; put pictures into a .zip or .tar"
    if head.startswith((*ZIP, GZIP)) or _is_tar(head):
        return "an archive"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"<svg", b"<?xml", b"<!DOCTYPE svg")) and b"<svg" in head:
        return "an SVG picture; save it as PNG"
    return next((words for signature, words in _KNOWN if head.startswith(signature)), None)


def _inside_gzip(path: Path, name: str) -> str:
    try:
        with gzip.open(path) as file:
            inner = file.read(HEAD)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError("archive_invalid", f"the gzip data is broken: {error}", name) from error
    if _is_tar(inner):
        return "tar.gz"
    if name.lower().endswith(_PACKED):
        return _text_kind(inner, name[: -len(".gz")])
    message = f"gzip of something other than a tar or {_PACKED[0]}; allowed: {ALLOWED}"
    raise DataError("unsupported_type", message, name)


def _inside_zip(path: Path) -> str:
    """`zip`, but of files that a modality reads by itself their ending: such an archive is one upload of these."""
    try:
        names = zip_names(path)
    except DataError:
        return "zip"  # its reader says what is wrong with it
    endings = ["." + name.rpartition(".")[2].lower() for name in names]
    return endings[0][1:] if endings and set(endings) <= set(OWN) else "zip"


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _text_kind(head: bytes, name: str) -> str:
    if head.startswith(_UTF16_32):
        raise DataError("encoding_error", "the file is UTF-16 or UTF-32; save it as UTF-8", name)
    what = foreign(head)
    if what is not None:
        raise DataError("unsupported_type", f"the file is {what}; allowed: {ALLOWED}", name)
    ending = "." + name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if b"\x00" in head:
        if ending in _NAMES:
            raise DataError("encoding_error", "the file holds NUL bytes; save it as UTF-8 text", name)
        raise DataError("unsupported_type", f"the file is not text; allowed: {ALLOWED}", name)
    if ending in (".csv", ".tsv", ".jsonl", ".ndjson"):
        return _NAMES[ending]
    if ending in OWN:
        return ending[1:]
    if ending == ".json" and not _first_line_is_object(head):
        message = "one JSON value over many lines; write one object a line instead (.jsonl)"
        raise DataError("unsupported_type", message, name)
    return "jsonl" if _first_line_is_object(head) else "txt"


def _first_line_is_object(head: bytes) -> bool:
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    if not line.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        # A long first object is cut by the head; a brace and a quote are telling enough.
        return len(head) == HEAD and line.startswith(b'{"') and b"\n" not in head
