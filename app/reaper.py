"""The background threads of every API process: they ring doorbells, end what ran out of time, and wake live streams.

They hold no state that matters: any number of processes may run them, and a kill at any point loses nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from app import garbage
from app.batches import expiry as batches
from app.datasets import expiry
from app.jobs import limits, parts, sweeps, wakeups
from app.jobs.limits import Limits
from app.models import imports
from app.platform import Platform, read_scope, session_scope
from app.queue import MAX_BACKLOG, BrokerDown, Doorbell
from app.webhooks.courier import Courier

log = structlog.get_logger(__name__)
_QUEUES = ("cpu", "gpu")
COLLECT_SECONDS = 6 * 3600
GATHER_SECONDS = 0.2
"""After doorbells were rung: whatever is queued meanwhile is rung with three statements, not with three each."""


class Reconciler:
    """Publishes the outbox, and rings again for what nobody took (R2). No session is open while it rings."""

    def __init__(self, platform: Platform, doorbell: Doorbell, numbers: Limits) -> None:
        self._platform, self._doorbell, self._limits = platform, doorbell, numbers

    def publish(self) -> int:
        """Ring what the outbox holds; returns how many. Raises BrokerDown, with the unrung rows kept."""
        count = 0
        while True:
            with read_scope(self._platform) as session:
                rings = sweeps.due_rings(session)
            if not rings:
                return count
            self._ring(rings)
            count += len(rings)

    def ring_again(self) -> int:
        """Ring for what waits unclaimed; not where the queue already holds more doorbells than anyone could miss."""
        count = 0
        if not self._doorbell.exists:
            return count
        for queue in _QUEUES:
            with read_scope(self._platform) as session:
                rings = sweeps.unclaimed(session, self._limits, queue)
            if rings and self._doorbell.backlog(queue) < MAX_BACKLOG:
                self._ring(rings)
                count += len(rings)
        return count

    def _ring(self, rings: list[sweeps.Ring]) -> None:
        done: list[sweeps.Ring] = []
        try:
            for ring in rings:
                self._doorbell.ring(ring.job_id, ring.queue)
                done.append(ring)
        finally:
            if done:
                with session_scope(self._platform) as session:
                    sweeps.rung(session, done)


class Reaper:
    """Ends leases, graces and waits that ran out.

    It holds still for one lease after its own or the database's return (R5): workers that were cut off together with it
    get the time to send a heartbeat, instead of all being declared dead at once.
    """

    def __init__(self, platform: Platform, numbers: Limits, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._platform, self._limits, self._monotonic = platform, numbers, monotonic
        self._still = numbers.lease_ms / 1000
        self._seen = self._returned = monotonic()

    def sweep(self) -> int:
        """Settle what is overdue; returns how many. Raises SQLAlchemyError while the database is away."""
        began = self._monotonic()
        if began - self._seen > self._still / 2:
            self._returned = began
        with read_scope(self._platform) as session:
            overdue = sweeps.overdue(session, self._limits)
        self._seen = self._monotonic()
        if self._seen - self._returned < self._still:
            return 0
        return sum(self._settle(job_id) for job_id in overdue)

    def _settle(self, job_id: str) -> bool:
        try:
            with session_scope(self._platform) as session:
                sweeps.settle(session, job_id, self._limits)
        except OperationalError:
            raise
        except Exception:
            # One job that cannot be settled must not keep the others from being.
            log.exception("job_not_settled", job=job_id)
            return False
        return True


class Conductor:
    """Moves jobs that are made of jobs as their parts move."""

    def __init__(self, platform: Platform, numbers: Limits) -> None:
        self._platform, self._limits = platform, numbers

    def look(self) -> int:
        """Look at each of them once; returns how many there are."""
        with read_scope(self._platform) as session:
            standing = parts.standing(session)
        for job_id in standing:
            try:
                with session_scope(self._platform) as session:
                    sweeps.advance(session, job_id, self._limits)
            except OperationalError:
                raise
            except Exception:
                # One job that cannot be moved must not keep the others from being.
                log.exception("job_not_moved", job=job_id)
        return len(standing)


class Watcher:
    """Wakes live streams for what other API processes committed: one query for all of them, once a second (L7)."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._seen: dict[str, int] = {}

    def look(self) -> int:
        """Wake the watchers of jobs that changed; returns how many changed."""
        watched = wakeups.watched()
        if not watched:
            self._seen = {}
            return 0
        with read_scope(self._platform) as session:
            found = sweeps.revisions(session, watched)
        changed = [job_id for job_id, revision in found.items() if self._seen.get(job_id) != revision]
        self._seen = found
        for job_id in changed:
            wakeups.wake(job_id)
        return len(changed)


class Background:
    """The running threads."""

    def __init__(self, platform: Platform) -> None:
        numbers = limits.of(platform.settings)
        self._platform = platform
        self._doorbell = Doorbell(platform.settings.broker_url)
        self._reconciler = Reconciler(platform, self._doorbell, numbers)
        self._reaper = Reaper(platform, numbers)
        self._watcher = Watcher(platform)
        self._conductor = Conductor(platform, numbers)
        self._stopped = threading.Event()
        pause = min(1.0, numbers.lease_ms / 8000, numbers.reconcile_ms / 4000)
        self._courier = Courier(platform)
        targets = {"reconciler": self._reconcile, "reaper": self._reap, "watcher": self._watch, "courier": self._carry}
        self._threads = [
            threading.Thread(target=target, args=(pause,), name=name, daemon=True) for name, target in targets.items()
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask them to end, and wait for the step they are in."""
        self._stopped.set()
        wakeups.outbox.set()
        for thread in self._threads:
            thread.join(timeout=10)
        self._doorbell.close()

    def _reconcile(self, pause: float) -> None:
        while not self._stopped.is_set():
            wakeups.outbox.clear()
            if not self._guarded(lambda: self._reconciler.publish() + self._reconciler.ring_again()):
                self._stopped.wait(pause)
            self._stopped.wait(GATHER_SECONDS)
            wakeups.outbox.wait(pause)

    def _reap(self, pause: float) -> None:
        looked_at, collected_at = 0.0, time.monotonic()
        while not self._stopped.is_set():
            self._guarded(self._reaper.sweep)
            self._guarded(self._conductor.look)
            self._guarded(lambda: expiry.sweep(self._platform))
            if time.monotonic() >= looked_at:
                self._guarded(lambda: imports.sweep(self._platform))
                self._guarded(lambda: batches.sweep(self._platform))
                looked_at = time.monotonic() + imports.SWEEP_SECONDS
            if time.monotonic() - collected_at > COLLECT_SECONDS:
                collected_at = time.monotonic()
                self._guarded(lambda: garbage.collect(self._platform).freed)
            self._stopped.wait(pause)

    def _watch(self, pause: float) -> None:
        while not self._stopped.is_set():
            self._guarded(self._watcher.look)
            self._stopped.wait(pause)

    def _carry(self, pause: float) -> None:
        while not self._stopped.is_set():
            self._guarded(self._courier.round)
            self._stopped.wait(pause)

    def _guarded(self, work: Callable[[], int]) -> bool:
        try:
            work()
        except (BrokerDown, SQLAlchemyError) as error:
            log.warning("background_work_waits", error=type(error).__name__, work=threading.current_thread().name)
            return False
        except Exception:
            # A thread that dies in silence would strand every job; the next round tries again.
            log.exception("background_work_failed", work=threading.current_thread().name)
            return False
        return True


def start(platform: Platform) -> Background:
    """Start the threads; the application's lifespan stops them."""
    return Background(platform)
