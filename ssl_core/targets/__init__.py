"""Every file beside this one that defines one `Target` is part of the platform; nothing else must be edited."""

from __future__ import annotations

from ssl_core.registry import scan
from ssl_core.targets.base import Target

TARGETS: dict[str, type[Target]] = scan(__name__, Target)
TARGET_COLUMNS: tuple[str, ...] = tuple(dict.fromkeys(name for one in TARGETS.values() for name in one.columns))
"""What an owner may say which column of theirs is, beside content and label."""

__all__ = ["TARGETS", "TARGET_COLUMNS", "Target"]
