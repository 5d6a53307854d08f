"""Server-made ids: a prefix and a sortable unique part. Nothing a user names ever becomes a path."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case


def made_ms(made: str) -> int:
    """When an id was made, unix milliseconds of the process that made it."""
    value = 0
    for digit in made.rpartition("_")[2]:
        value = 32 * value + _ALPHABET.index(digit)
    return value >> 80


def new_id(prefix: str) -> str:
    """`ds_01k…`: 48 bits of milliseconds, then 80 random bits, so that newer ids sort later."""
    value = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    digits = []
    for _ in range(26):
        value, rest = divmod(value, 32)
        digits.append(_ALPHABET[rest])
    return f"{prefix}_{''.join(reversed(digits))}"
