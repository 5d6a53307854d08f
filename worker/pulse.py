"""The heartbeat of one attempt, in its own thread: it brings the commands, and knows when to give up (R5, R7)."""

from __future__ import annotations

import logging
import random
import threading
import time

from worker import logs
from worker.api_client import ApiTrouble, Door, LeaseLost
from worker.ticket import Ticket

FENCE_SHARE = 0.75  # of the lease: dead before anyone else may take the job over
log = logging.getLogger(__name__)


class Pulse:
    """Keeps the lease; `gone` is set once it must be taken for lost, and every wait of the attempt ends.

    Args:
        ticket: the attempt.
        claimed_at: monotonic time *before* the claim was sent; the lease began later, so we end before it does.
    """

    def __init__(self, ticket: Ticket, claimed_at: float) -> None:
        self._ticket = ticket
        self._last_ok = claimed_at
        self._stopped = threading.Event()
        self._thread = logs.thread(self._beat, f"pulse-{ticket.name}")
        self._door: Door | None = None
        self.gone = threading.Event()
        self.command: str | None = None
        self.fencing = True

    def start(self, door: Door) -> None:
        """Begin to beat through `door`."""
        self._door = door
        self._thread.start()

    def overdue(self) -> bool:
        """Whether no heartbeat got through for so long that the lease may soon be someone else's; sets `gone`."""
        late = time.monotonic() - self._last_ok > FENCE_SHARE * self._ticket.lease_seconds
        if late and self.fencing:
            self.gone.set()
        return self.gone.is_set()

    def stop_fencing(self) -> None:
        """The engine is dead and its result is on disk: from now on only the API's own word ends the attempt.

        An expired lease that nobody took is revived by its own fence (R5), so a finished run is not thrown away.
        """
        self.fencing = False

    def stop(self) -> None:
        """No more heartbeats."""
        self._stopped.set()
        self._thread.join(timeout=1)

    def _beat(self) -> None:
        every = self._ticket.heartbeat_seconds
        timeout = max(0.2, min(10.0, every, self._ticket.lease_seconds / 6))
        pause = every * random.uniform(0.2, 1)
        while not self._stopped.wait(pause):
            pause = self._once(timeout, every)
            if self.gone.is_set():
                return

    def _once(self, timeout: float, every: float) -> float:
        assert self._door is not None
        asked_at = time.monotonic()
        try:
            self.command = self._door.heartbeat(timeout) or self.command
            self._last_ok = asked_at
        except LeaseLost as lost:
            log.warning("%s: the lease is lost (%s)", self._ticket.name, lost)
            self.gone.set()
        except (ApiTrouble, ValueError) as trouble:
            log.warning("%s: heartbeat not delivered (%s)", self._ticket.name, trouble)
            self.overdue()
            return every * random.uniform(0.2, 0.4)
        return every * random.uniform(0.8, 1)
