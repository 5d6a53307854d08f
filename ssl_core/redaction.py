"""Keys and tokens as they read in a message or a log line: not at all (R23, R24)."""

from __future__ import annotations

import re

_SECRET = re.compile(r"gw_[0-9a-z]{26}_[0-9a-z]{8,}|gwa_[A-Za-z0-9_-]{8,}")


def redacted(text: str) -> str:
    """The text with every API key and attempt token in it cut to its prefix."""
    return _SECRET.sub(lambda found: f"{found[0].partition('_')[0]}_…", text)
