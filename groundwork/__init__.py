"""Groundwork: the Python client and the command line.

The client's names are here, too, and are imported when they are asked for: the roles of a server need none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundwork.client import *  # noqa: F403


def __getattr__(name: str) -> Any:
    client = importlib.import_module("groundwork.client") if name[:1].isupper() else None  # not for our modules
    if client is None or name not in client.__all__:
        raise AttributeError(f"module 'groundwork' has no attribute {name!r}")
    return getattr(client, name)
