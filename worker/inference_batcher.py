"""One thread that computes; concurrent requests of one model share its batches, measured in tokens.

Each turn serves one group (model, verb, pooling). A quarter of its token budget is for the request that has waited
longest, the rest for the group's requests, small ones first: one of 2,048 documents never holds up one of a single
line, and is not held up for ever by many of them. Then what is left of the group goes behind all others: groups take
turns.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from worker.inference_errors import Busy

_SHARE = 4
"""The longest waiting request has one part of so many of each turn to itself."""


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

    def cheapest(self, room: int, some: bool = False) -> list[int]:
        """Numbers of the next samples that cost no more than `room` together, which are to be done no longer; with
        `some` at least one, whatever it costs."""
        chosen: list[int] = []
        while self.order and (self.costs[self.order[-1]] <= room or (some and not chosen)):
            at = self.order.pop()
            room -= self.costs[at]
            chosen.append(at)
        return chosen

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
        turn = {head: head.cheapest(room // _SHARE, some=True)}
        room -= sum(head.costs[at] for at in turn[head])
        for work in members:
            chosen = work.cheapest(room)
            room -= sum(work.costs[at] for at in chosen)
            if chosen:
                turn[work] = [*turn.get(work, ()), *chosen]
        return list(turn.items())

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
        """Answer what is complete; the rest of the group goes behind all others, as it came. Under the lock."""
        for work, chosen in turn:
            self._waiting -= sum(work.costs[at] for at in chosen)
            if work.future.done():  # failed, or its caller went away
                self._waiting -= work.waiting
            elif not work.order:
                work.succeed()
            else:
                continue
            self._queue.remove(work)
        group = turn[0][0].group if turn else None
        rest = [work for work in self._queue if work.group == group]
        self._queue = deque(work for work in self._queue if work.group != group)
        self._queue.extend(rest)
