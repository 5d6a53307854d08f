"""When a request is sent again, and how long that waits. Every POST is, under one `Idempotency-Key`."""

from __future__ import annotations

import email.utils
import random
import time
from dataclasses import dataclass

import httpx2

from groundwork.errors import APIStatusError

AGAIN = frozenset({408, 429, 502, 503, 504})
BROKEN_BODIES = ("upload_broken_off", "upload_stalled")
"""Codes of a 400 for a body that was cut off on its way."""


@dataclass(frozen=True)
class Retries:
    """Up to `times` more tries. Waits double from `first` seconds to `most`, each with jitter.

    A `Retry-After` of up to `patience` seconds is the least that is waited; a longer one ends the tries, so that the
    caller hears of it.
    """

    times: int = 6
    first: float = 0.25
    most: float = 8.0
    patience: float = 60.0

    def wait(self, tries: int, answer: httpx2.Response | None = None) -> float | None:
        """Seconds until the next try, None where there is to be none.

        Args:
            tries: how many have been made.
            answer: the server's; None where there was none.
        """
        if tries > self.times or (answer is not None and not _worth(answer)):
            return None
        backoff: float = min(self.first * 2.0 ** (tries - 1), self.most) * random.uniform(0.5, 1.0)
        asked = None if answer is None else _seconds(answer.headers.get("retry-after"))
        if asked is None:
            return backoff
        return None if asked > self.patience else max(asked + random.uniform(0, 0.25), backoff)


def passing(error: APIStatusError) -> bool:
    """Whether what the server refused for may be over later, as a full disk or a restart is: worth going on then."""
    busy = error.code in (*BROKEN_BODIES, "idempotency_in_flight")
    return busy or error.status in AGAIN or error.status >= 500


def _worth(answer: httpx2.Response) -> bool:
    told = answer.headers.get("x-should-retry")
    if told in ("true", "false"):
        return bool(told == "true")
    if answer.status_code == 409:  # another copy of this request is being answered
        return "retry-after" in answer.headers
    if answer.status_code == 400:
        return any(code in answer.text for code in BROKEN_BODIES)
    return answer.status_code in AGAIN


def _seconds(header: str | None) -> float | None:
    """Of `Retry-After`, a number or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
