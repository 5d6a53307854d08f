"""What pages load beside themselves: scripts, styles and pictures, held in memory, compressed once."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import Request, Response

from app.errors import NotFound

_VERSION = re.compile(r"[0-9a-f]{12}")
FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class Asset:
    """One file: as it is, compressed, and the sha256 by which browsers know it."""

    content: bytes
    packed: bytes
    tag: str
    media_type: str


@cache
def assets() -> dict[str, Asset]:
    """Every file by its path below `static`: what is not in here is not served."""
    found = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in _TYPES}
    return {name: _read(path) for name, path in found.items()}


@cache
def version() -> str:
    """Changes with any of the files."""
    tags = "".join(f"{name} {asset.tag}\n" for name, asset in sorted(assets().items()))
    return hashlib.sha256(tags.encode()).hexdigest()[:12]


def answer(request: Request, name: str) -> Response:
    """The file, or 304. Pages put the version before the name, so that scripts find each other under the same one;
    such an answer may be kept for good. Raises NotFound."""
    told, _, rest = name.partition("/")
    lasting = told == version()
    asset = assets().get(rest if _VERSION.fullmatch(told) else name)
    if asset is None:
        raise NotFound("file", name)
    headers = {
        "ETag": f'"{asset.tag}"',
        "Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-cache",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(asset.content, headers=headers, media_type=asset.media_type)
    return Response(asset.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=asset.media_type)


def _read(path: Path) -> Asset:
    content = path.read_bytes()
    packed = gzip.compress(content, mtime=0)
    return Asset(content, packed, hashlib.sha256(content).hexdigest()[:32], _TYPES[path.suffix])
