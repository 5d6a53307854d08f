"""Secrets that are needed back: sealed with a key that lies outside the database (R26)."""

from __future__ import annotations

import base64
import hashlib
import hmac

from cryptography.fernet import Fernet

from app.settings import Settings

_PURPOSE = b"groundwork webhook secrets 1"


def seal(settings: Settings, secret: bytes) -> bytes:
    """AES-128-CBC with HMAC-SHA256 (Fernet), under a key made from `GROUNDWORK_SECRET_KEY`."""
    return _box(settings).encrypt(secret)


def unseal(settings: Settings, sealed: bytes) -> bytes:
    """What was sealed. Raises `cryptography.fernet.InvalidToken` where the key is another one."""
    return _box(settings).decrypt(sealed)


def _box(settings: Settings) -> Fernet:
    made = hmac.new(settings.secret_key.get_secret_value().encode(), _PURPOSE, hashlib.sha256).digest()
    return Fernet(base64.urlsafe_b64encode(made))
