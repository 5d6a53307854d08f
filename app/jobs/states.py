"""The states of a job and the only legal moves between them (reliability.md §2). Terminal states never change.

Everything else in this domain reads these two tables; a move that is not here cannot be written.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    """Waiting for a worker, or for a backoff to pass before the next attempt."""
    RUNNING = "running"
    """One attempt holds the lease and works."""
    PAUSING = "pausing"
    """A pause was asked for; the attempt saves a checkpoint and lets go."""
    PAUSED = "paused"
    """Stopped with its last checkpoint kept, until someone resumes or cancels it."""
    CANCELLING = "cancelling"
    """A cancel was asked for; the attempt saves what it has and lets go."""
    CANCELLED = "cancelled"
    """Ended on request; the last checkpoint is kept."""
    SUCCEEDED = "succeeded"
    """Ended with its result committed."""
    FAILED = "failed"
    """Ended with an error that says what was wrong."""


class Outcome(StrEnum):
    """Why an attempt ended."""

    SUCCEEDED = "succeeded"
    """It delivered the result."""
    FAILED = "failed"
    """It reported an error."""
    RELEASED = "released"
    """Its worker gave the job back in good order (drain)."""
    LOST = "lost"
    """Its lease ran out, or its worker found it dead."""
    PAUSED = "paused"
    """It let go because of a pause."""
    CANCELLED = "cancelled"
    """It let go because of a cancel."""


class Move(NamedTuple):
    """One legal step, who makes it, and what must hold."""

    source: Status
    target: Status
    by: str
    guard: str


_S = Status
MOVES: tuple[Move, ...] = (
    Move(_S.QUEUED, _S.RUNNING, "claim", "queued and due; the fence goes up by one (made of jobs: a part has begun)"),
    Move(_S.QUEUED, _S.PAUSED, "user", "pause before a worker took it"),
    Move(_S.QUEUED, _S.CANCELLED, "user", "cancel before a worker took it"),
    Move(_S.QUEUED, _S.FAILED, "reaper", "the longest wait has passed"),
    Move(_S.RUNNING, _S.PAUSING, "user", "pause; the heartbeat carries it"),
    Move(_S.RUNNING, _S.CANCELLING, "user", "cancel; the heartbeat carries it"),
    Move(_S.RUNNING, _S.QUEUED, "worker or reaper", "released, or lost within the infra budget"),
    Move(_S.RUNNING, _S.SUCCEEDED, "worker", "fence matches and every artefact file is stored"),
    Move(_S.RUNNING, _S.FAILED, "worker, claim or reaper", "a retry cannot mend it, or the budget is spent"),
    Move(_S.PAUSING, _S.PAUSED, "worker or reaper", "released, lost, or the lease ran out"),
    Move(_S.PAUSING, _S.CANCELLING, "user", "cancel overrules pause"),
    Move(_S.PAUSING, _S.SUCCEEDED, "worker", "it finished before the pause reached it"),
    Move(_S.PAUSING, _S.FAILED, "worker", "an error that a retry cannot mend"),
    Move(_S.PAUSED, _S.QUEUED, "user", "resume"),
    Move(_S.PAUSED, _S.CANCELLED, "user", "cancel"),
    Move(_S.CANCELLING, _S.CANCELLED, "worker or reaper", "any report, lease expiry or grace expiry; late success too"),
)
LEGAL: frozenset[tuple[Status, Status]] = frozenset((move.source, move.target) for move in MOVES)
TERMINAL: frozenset[Status] = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED})
HELD: frozenset[Status] = frozenset({_S.RUNNING, _S.PAUSING, _S.CANCELLING})
"""States in which one attempt holds the lease."""
LIVE: frozenset[Status] = frozenset(set(Status) - TERMINAL)
