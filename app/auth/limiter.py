"""How many requests a project may make: one count for all API processes, kept where the doorbells are (R18, B80).

A window begins with a project's first request and lasts a minute by the broker's own clock (R22). A process takes
permits from the shared count some at a time, so that most requests ask nobody. Without a broker, and while it is away,
each process counts for itself: a limit that is too wide for a while is better than a platform that answers nobody.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import structlog

from app.errors import TooMany

if TYPE_CHECKING:
    import redis

log = structlog.get_logger(__name__)
WINDOW_SECONDS = 60
_SHARES = 200
"""A process takes a two-hundredth of the limit at a time, and may leave as much of it unused."""
_PATIENCE_SECONDS = 0.25
_PAUSE_SECONDS = 5.0
_RESERVE = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
local granted = math.min(tonumber(ARGV[2]), tonumber(ARGV[1]) - used)
if granted > 0 then
  used = redis.call('INCRBY', KEYS[1], granted)
  if used == granted then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
end
return {math.max(granted, 0), tonumber(ARGV[1]) - used, redis.call('PTTL', KEYS[1])}
"""


class Granted(NamedTuple):
    """What a count gave: permits, how many are left for others, and seconds until all are there again."""

    permits: int
    left: int
    seconds: float


class Count(Protocol):
    """A count of permits in a window."""

    def reserve(self, project_id: str, wanted: int) -> Granted:
        """Up to `wanted` permits."""


class OwnCount:
    """In this process."""

    def __init__(self, limit: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._monotonic = limit, monotonic
        self._windows: dict[str, tuple[float, int]] = {}

    def reserve(self, project_id: str, wanted: int) -> Granted:
        """Up to `wanted` permits."""
        now = self._monotonic()
        end, used = self._windows.get(project_id, (0.0, 0))
        if now >= end:
            end, used = now + WINDOW_SECONDS, 0
        permits = max(0, min(wanted, self._limit - used))
        self._windows[project_id] = (end, used + permits)
        return Granted(permits, self._limit - used - permits, end - now)


class SharedCount:
    """In the broker, for all processes; in this one while the broker does not answer."""

    def __init__(self, limit: int, client: redis.Redis) -> None:
        self._limit, self._own = limit, OwnCount(limit)
        self._reserve = client.register_script(_RESERVE)
        self._away_until = 0.0

    def reserve(self, project_id: str, wanted: int) -> Granted:
        """Up to `wanted` permits."""
        from redis import RedisError

        if time.monotonic() < self._away_until:
            return self._own.reserve(project_id, wanted)
        try:
            arguments = [self._limit, wanted, WINDOW_SECONDS * 1000]
            found: Any = self._reserve(keys=[f"groundwork:rate:{project_id}"], args=arguments)
        except RedisError as error:
            log.warning("rates_counted_apart", error=type(error).__name__)
            self._away_until = time.monotonic() + _PAUSE_SECONDS
            return self._own.reserve(project_id, wanted)
        permits, left, milliseconds = (int(each) for each in found)
        return Granted(permits, left, max(0, milliseconds) / 1000)


class _Held(NamedTuple):
    permits: int
    left: int
    until: float


class Limiter:
    """Gives each request of a project a permit, or refuses it."""

    def __init__(self, limit: int, count: Count) -> None:
        self._limit, self._count = limit, count
        self._share = max(1, limit // _SHARES)
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, limit: int, broker_url: str) -> Limiter | None:
        """For `limit` requests a minute; None where it is 0. Connects to nothing yet."""
        if not limit:
            return None
        if not broker_url:
            return cls(limit, OwnCount(limit))
        import redis  # takes a tenth of a second, which an API without a broker need not wait for at its start

        url = broker_url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")
        timeouts = {"socket_timeout": _PATIENCE_SECONDS, "socket_connect_timeout": _PATIENCE_SECONDS}
        return cls(limit, SharedCount(limit, redis.Redis.from_url(url, **timeouts)))

    def holds(self, project_id: str) -> bool:
        """Whether a permit is in hand, so that `take` asks nobody."""
        held = self._held.get(project_id)
        return held is not None and held.permits > 0 and time.monotonic() < held.until

    def take(self, project_id: str) -> list[tuple[bytes, bytes]]:
        """Headers that tell what is left. Raises TooMany `rate_limited` where nothing is."""
        with self._lock:
            now = time.monotonic()
            held = self._held.get(project_id)
            # Nothing comes back before the window ends: who was refused is refused again without asking anybody.
            if held is None or now >= held.until or (held.permits < 1 and held.left > 0):
                granted = self._count.reserve(project_id, self._share)
                held = _Held(granted.permits, granted.left, now + granted.seconds)
            seconds = max(1, math.ceil(held.until - now))
            self._held[project_id] = held._replace(permits=max(0, held.permits - 1))
        left = max(0, held.permits - 1 + held.left)
        policy = f'"requests";q={self._limit};w={WINDOW_SECONDS}'
        headers = {"RateLimit-Policy": policy, "RateLimit": f'"requests";r={left};t={seconds}'}
        if held.permits < 1:
            message = f"This project has made its {self._limit} requests of a minute; try again in {seconds} s."
            refusal = TooMany("rate_limited", message, retry_after=seconds)
            refusal.headers |= headers
            raise refusal
        return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
