"""The text of a key: `gw_<public id>_<secret><checksum>`, after GitHub's token format (R23).

The public id finds the row, 200 random bits are the secret, and a CRC-32 lets a scanner, or us, tell a typo from a
guess without asking the database.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_SECRET_LENGTH = 40
_FORMAT = re.compile(r"gw_([0-9a-z]{26})_([0-9a-z]{40})([0-9a-z]{7})")


def new_secret() -> str:
    """200 random bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))


def key_text(key_id: str, secret: str) -> str:
    """What the user keeps."""
    public = key_id.removeprefix("key_")
    return f"gw_{public}_{secret}{_checksum(public + secret)}"


def parse(text: str) -> tuple[str, str] | None:
    """(key id, secret), or None for anything that is not a well-formed key."""
    match = _FORMAT.fullmatch(text)
    if match is None:
        return None
    public, secret, checksum = match.groups()
    return (f"key_{public}", secret) if checksum == _checksum(public + secret) else None


def keyed_hash(secret: str, server_secret: str) -> bytes:
    """What the database keeps: useless without the server's own secret."""
    return hmac.digest(server_secret.encode(), secret.encode(), hashlib.sha256)


def _checksum(text: str) -> str:
    value, digits = zlib.crc32(text.encode()), []
    for _ in range(7):
        value, rest = divmod(value, 32)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))
