"""One thread that computes; concurrent requests of one model share its batches, measured in tokens.

Each turn serves one group (model, verb, pooling): every waiting request of the group gives samples until the token
budget is full, small requests first, so that a request of 2,048 documents never holds up one of a single line.
What is left of a request goes to the back of the queue.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from worker.inference_errors import Busy


@dataclass(eq=False)
class Work:
    """One request. `compute` takes samples of any request of the same `group` and gives one answer for each."""

    group: Hashable
    compute: Callable[[list[Any]], Iterable[Any]]
    samples: list[Any]
    costs: list[int]
    batch_tokens: int
    future: Future[list[Any]] = field(default_factory=Future)
    order: list[int] = field(init=False)
    """Sample numbers still to do, the cheapest last: slices hold samples of like length."""
    answers: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.order = sorted(range(len(self.samples)), key=lambda at: -self.costs[at])
        self.answers = [None] * len(self.samples)

    @property
    def waiting(self) -> int:
        """Tokens still to do."""
        return sum(self.costs[at] for at in self.order)

    def succeed(self) -> None:
        """Hand the answers over, unless the caller went away at this moment."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(self.answers)

    def fail(self, error: Exception) -> None:
        """Hand the error over, unless the caller went away."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class Batcher:
    """Owns the computing thread."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._queue: deque[Work] = deque()
        self._waiting = 0
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> Future[list[Any]]:
        """The answers, in the order of the samples, when they are done. Raises Busy when the queue is full."""
        cost = work.waiting
        with self._wake:
            if self._closing:
                raise Busy("shutting_down", "The inference process is shutting down; try again.")
            # An empty queue takes anything: a request larger than the bound is slow, not impossible.
            if self._queue and self._waiting + cost > self._max_waiting:
                raise Busy("inference_busy", "Too much is waiting to be computed; try again.")
            self._waiting += cost
            self._queue.append(work)
            self._wake.notify()
        return work.future

    def close(self) -> None:
        """Finish what is queued, then stop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Tokens still to be computed."""
        return self._waiting

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._closing)
                self._drop_abandoned()
                if not self._queue and self._closing:
                    return
                turn = self._take() if self._queue else []
            self._compute(turn)
            with self._wake:
                self._settle(turn)

    def _drop_abandoned(self) -> None:
        """Forget requests whose caller went away. Under the lock."""
        for work in [work for work in self._queue if work.future.cancelled()]:
            self._queue.remove(work)
            self._waiting -= work.waiting

    def _take(self) -> list[tuple[Work, list[int]]]:
        """The next turn: (request, sample numbers) of the group at the head of the queue. Under the lock."""
        head = self._queue[0]
        members = sorted((work for work in self._queue if work.group == head.group), key=lambda work: work.waiting)
        room = head.batch_tokens
        turn: list[tuple[Work, list[int]]] = []
        for work in members:
            chosen: list[int] = []
            while work.order and (work.costs[work.order[-1]] <= room or not (turn or chosen)):
                at = work.order.pop()
                room -= work.costs[at]
                chosen.append(at)
            if chosen:
                turn.append((work, chosen))
        return turn

    def _compute(self, turn: list[tuple[Work, list[int]]]) -> None:
        if not turn:
            return
        samples = [work.samples[at] for work, chosen in turn for at in chosen]
        try:
            answers = iter(turn[0][0].compute(samples))
            for work, chosen in turn:
                for at in chosen:
                    work.answers[at] = next(answers)
        except Exception as error:  # whatever the model raised belongs to the callers, not to this thread
            for work, _ in turn:
                work.fail(error)

    def _settle(self, turn: list[tuple[Work, list[int]]]) -> None:
        """Answer what is complete; move the rest to the back. Under the lock."""
        for work, chosen in turn:
            self._waiting -= sum(work.costs[at] for at in chosen)
            self._queue.remove(work)
            if work.future.done():  # failed, or its caller went away
                self._waiting -= work.waiting
            elif work.order:
                self._queue.append(work)
            else:
                work.succeed()
