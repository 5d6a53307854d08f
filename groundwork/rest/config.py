"""Which server, and as whom."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from urllib.parse import urlsplit

from groundwork.errors import NotConfigured


def address(url: str | None, key: str | None) -> tuple[str, str]:
    """The server's address without `/v1`, and the key; each from the environment where it is not given.

    Raises:
        NotConfigured: one is missing or cannot be one.
    """
    url = (url or os.environ.get("GROUNDWORK_URL", "")).strip()
    key = (key or os.environ.get("GROUNDWORK_API_KEY", "")).strip()
    if not url:
        raise NotConfigured("no server: give base_url, or set GROUNDWORK_URL to such as http://127.0.0.1:8420")
    if not key:
        raise NotConfigured("no API key: give api_key, or set GROUNDWORK_API_KEY; `groundwork keys create` makes one")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise NotConfigured(f"{url!r} is no address of a server; one looks like http://127.0.0.1:8420")
    if not key.isascii() or not key.isprintable():
        raise NotConfigured("the API key holds characters that no key has")
    return url.rstrip("/").removesuffix("/v1"), key


def agent() -> str:
    """What this client calls itself."""
    try:
        version = importlib.metadata.version("groundwork")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    return f"groundwork-python/{version} python/{platform.python_version()}"
