"""What a user reads when a run fails."""

from __future__ import annotations

import errno

import pytest

from ssl_core.errors import CheckpointError, DataError, NonFiniteError, OutOfMemoryError, SpecError
from ssl_core.verdict import failure


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SpecError, "user"),
        (DataError, "data"),
        (NonFiniteError, "user"),
        (CheckpointError, "user"),
        (OutOfMemoryError, "oom"),
    ],
)
def test_an_engine_error_keeps_its_words(error: type, kind: str) -> None:
    told = failure(error("some_code", "what went wrong", "the.field"))["error"]
    assert told == {"class": kind, "code": "some_code", "message": "what went wrong", "param": "the.field"}


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (MemoryError(), "oom", "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "infra", "disk_full"),
        (OSError(errno.EIO, "Input/output error"), "infra", "engine_error"),
        (ZeroDivisionError("secret/path.py"), "infra", "engine_error"),
    ],
)
def test_anything_else_is_told_in_plain_words(error: BaseException, kind: str, code: str) -> None:
    told = failure(error)["error"]
    assert (told["class"], told["code"]) == (kind, code)
    assert "secret" not in told["message"]
