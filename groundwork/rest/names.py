"""Names that the server gives, as places on this machine, and places of this machine as paths of the server."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote

from groundwork.errors import UnsafeName

_TRUE_NAME = re.compile(r"filename\*=UTF-8''([^;\s]+)", re.IGNORECASE)


def path_of(*parts: str) -> str:
    """A path of the API from parts, each quoted whole: `path_of("jobs", id)`."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def inner(path: str) -> str:
    """A relative path of a file of the server, quoted between its slashes."""
    return quote(path, safe="/")


def within(folder: Path, name: str) -> Path:
    """Where a file of the server lands below `folder`. Raises UnsafeName where that would be anywhere else."""
    parts = name.split("/")
    odd = "\\" in name or "\0" in name or ":" in parts[0] or any(part in ("", ".", "..") for part in parts)
    target = folder.joinpath(*parts)
    if odd or not target.resolve().is_relative_to(folder.resolve()):  # a link in the folder may lead out of it, too
        raise UnsafeName(f"the server names a file {name!r}, which would not stay in {folder}")
    return target


def named_by(disposition: str | None, otherwise: str) -> str:
    """The file name of a `Content-Disposition`, less whatever is no name of a file on every system."""
    found = _TRUE_NAME.search(disposition or "")
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", unquote(found.group(1)) if found else otherwise).strip(" .")
    return name[:200] or "download"
