"""F41: random lives of jobs on the real service and a real SQLite file, beside a model that knows nothing of its code.

The clock is virtual and the broker drops, duplicates and reorders. After every step the rows equal the model (I2, I3);
at the end of every example the faults stop and every job must end (I1).
"""

from __future__ import annotations

import functools
import itertools
import os
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select

from app.errors import Conflict
from app.jobs import artifacts, attempts, control, reports
from app.jobs.artifacts import FileClaim
from app.jobs.clock import CLOCK
from app.jobs.limits import Limits
from app.jobs.tables import Attempt, Job, JobEvent, Point
from app.jobs.transitions import LeaseLost
from app.jobs.turns import Wanted
from app.platform import Platform, read_scope, session_scope
from app.queue import BrokerDown
from app.reaper import Reaper, Reconciler
from ssl_core.events import EVENT
from tests.app.conftest import make_settings
from tests.app.jobs_world import WORKER, make_job, metrics_event, ready_dataset, summary
from tests.services import make_tables

LIMITS = Limits(lease_ms=1000, grace_ms=1500, max_infra_losses=2, backoff_ms=100, reconcile_ms=500)
PROJECT = "proj_model"
STEPS = {
    ("queued", "running"), ("queued", "paused"), ("queued", "cancelled"), ("queued", "failed"), ("running", "pausing"),
    ("running", "cancelling"), ("running", "queued"), ("running", "succeeded"), ("running", "failed"),
    ("pausing", "paused"), ("pausing", "cancelling"), ("pausing", "succeeded"), ("pausing", "failed"),
    ("paused", "queued"), ("paused", "cancelled"), ("cancelling", "cancelled"),
}  # fmt: skip
ENDED = {"succeeded", "failed", "cancelled"}
HELD = {"running", "pausing", "cancelling"}


@functools.cache
def empty_database() -> bytes:
    """A SQLite file with every table, made once."""
    with tempfile.TemporaryDirectory(prefix="gw", dir="/tmp") as folder:
        path = Path(folder) / "empty.db"
        make_tables(f"sqlite:///{path}")
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return path.read_bytes()


class Broker:
    """A doorbell that misbehaves as it is told to."""

    exists = True

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.mood = "good"

    def ring(self, job_id: str, queue: str) -> None:
        """Publish, lose, or publish twice."""
        if self.mood == "down":
            raise BrokerDown("down")
        self.messages += [job_id] * {"good": 1, "twice": 2, "lost": 0}[self.mood]

    def backlog(self, queue: str) -> int:
        """Messages waiting."""
        return len(self.messages)


@dataclass
class Life:
    """What the model believes of one job."""

    status: str = "queued"
    fence: int = 0
    due: int = 0
    lease: int = 0
    grace: int = 0
    losses: int = 0
    answers: dict[int, tuple[str, str]] = field(default_factory=dict)

    def let_go(self, verb: str, status: str) -> None:
        """The attempt that holds the job ends itself."""
        self.status = status
        self.answers[self.fence] = (verb, status)

    def lost(self, now: int) -> str:
        """Where a loss leads."""
        if self.status == "cancelling":
            return "cancelled"
        if self.status == "pausing":
            return "paused"
        self.losses += 1
        if self.losses > LIMITS.max_infra_losses:
            return "failed"
        self.due = now + LIMITS.backoff_ms * 2 ** (self.losses - 1)
        return "queued"


class JobMachine(RuleBasedStateMachine):
    """The real service, step by step beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="gw", dir="/tmp")
        root = Path(self.folder.name)
        (root / "m.db").write_bytes(empty_database())
        url = f"sqlite:///{root / 'm.db'}"
        self.now = 1_000_000
        self.platform = Platform.open(make_settings(url, root))
        for maker in (self.platform.sessions, self.platform.read_sessions):
            maker.configure(info={CLOCK: lambda: self.now})
        self.dataset = ready_dataset(self.platform, PROJECT)
        self.broker = Broker()
        self.reconciler = Reconciler(self.platform, self.broker, LIMITS)  # type: ignore[arg-type]
        self.reconciler.publish()
        self.broker.messages.clear()
        self.reaper = Reaper(self.platform, LIMITS, lambda: self.now / 1000)
        self.quiet_until = self.now + LIMITS.lease_ms
        self.seen_at = self.now
        self.lives: dict[str, Life] = {}
        self.tokens: list[tuple[str, int]] = []
        self.accepted: list[tuple[str, int]] = []
        self.sequence = 0

    def teardown(self) -> None:
        """The faults stop: every job must end, within a bounded number of rounds."""
        self.broker.mood = "good"
        for _ in range(40):
            waiting = {id: life for id, life in self.lives.items() if life.status not in ENDED}
            if not waiting:
                break
            for job_id, life in waiting.items():
                if life.status == "paused":
                    self._steer("resume", job_id)
            self.pass_time(600)
            self.reap()
            self.publish("good")
            while self.broker.messages:
                self.deliver(0)
            for index, (job_id, fence) in enumerate(self.tokens):
                if self.lives[job_id].fence == fence and self.lives[job_id].status in HELD:
                    self.complete(index)
        self.rows_equal_the_model()
        assert all(life.status in ENDED for life in self.lives.values()), self.lives
        self.platform.close()
        self.folder.cleanup()

    @precondition(lambda self: len(self.lives) < 4)
    @rule()
    def create(self) -> None:
        """A user submits."""
        with session_scope(self.platform) as session:
            job = make_job(session, PROJECT, self.dataset)
        self.lives[job.id] = Life(due=self.now)

    @rule(mood=st.sampled_from(["good", "twice", "lost", "down"]))
    def publish(self, mood: str) -> None:
        """The reconciler's round, with the broker in this mood."""
        self.broker.mood = mood
        try:
            self.reconciler.publish()
            self.reconciler.ring_again()
        except BrokerDown:
            assert mood == "down"

    @precondition(lambda self: self.broker.messages)
    @rule(at=st.integers(0, 50))
    def deliver(self, at: int) -> None:
        """A message arrives, in any order."""
        self._claim(self.broker.messages.pop(at % len(self.broker.messages)))

    @rule()
    def flush(self) -> None:
        """FLUSHALL."""
        self.broker.messages.clear()

    @rule()
    def poll(self) -> None:
        """A worker without a broker asks for anything."""
        self._claim(None)

    @rule(ms=st.sampled_from([50, 200, 400, 1100, 2500]))
    def pass_time(self, ms: int) -> None:
        """The database's clock goes on."""
        self.now += ms

    @rule()
    def restart_reaper(self) -> None:
        """The API restarts: its reaper holds still for a while."""
        self.reaper = Reaper(self.platform, LIMITS, lambda: self.now / 1000)
        self.quiet_until, self.seen_at = self.now + LIMITS.lease_ms, self.now

    @rule()
    def reap(self) -> None:
        """The reaper's round."""
        if self.now - self.seen_at > LIMITS.lease_ms / 2:
            self.quiet_until = self.now + LIMITS.lease_ms
        self.seen_at = self.now
        self.reaper.sweep()
        if self.now < self.quiet_until:
            return
        for life in self.lives.values():
            if life.status in HELD and life.lease <= self.now:
                life.status = life.lost(self.now)
            elif life.status == "cancelling" and life.grace <= self.now:
                life.status = "cancelled"

    @precondition(lambda self: self.lives)
    @rule(verb=st.sampled_from(["cancel", "pause", "resume"]), at=st.integers(0, 3))
    def steer(self, verb: str, at: int) -> None:
        """A user cancels, pauses or resumes."""
        self._steer(verb, list(self.lives)[at % len(self.lives)])

    @precondition(lambda self: self.tokens)
    @rule(at=st.integers(0, 30))
    def heartbeat(self, at: int) -> None:
        """An attempt, maybe a stale one, says that it lives; an expired lease that nobody took is revived."""
        job_id, fence = self._token(at)
        life = self.lives[job_id]
        command = self._write(job_id, fence, lambda s, a: attempts.heartbeat(s, job_id, a.token_hash, fence, LIMITS))
        if self._holds(life, fence):
            life.lease = self.now + LIMITS.lease_ms
            assert command == {"running": None, "pausing": "pause", "cancelling": "cancel"}[life.status]

    @precondition(lambda self: self.tokens)
    @rule(at=st.integers(0, 30), step=st.integers(1, 20))
    def report(self, at: int, step: int) -> None:
        """An attempt sends a metric."""
        job_id, fence = self._token(at)
        self.sequence += 1
        event = EVENT.validate_python(metrics_event(self.sequence, step, loss=float(fence)))
        self._write(job_id, fence, lambda s, a: reports.accept_events(s, a, fence, [event]))

    @precondition(lambda self: self.tokens)
    @rule(at=st.integers(0, 30))
    def complete(self, at: int) -> None:
        """An attempt reports success, maybe late, maybe twice."""
        job_id, fence = self._token(at)
        life = self.lives[job_id]
        target = "cancelled" if life.status == "cancelling" else "succeeded"
        self._end(job_id, fence, "complete", target, self._complete)

    @precondition(lambda self: self.tokens)
    @rule(at=st.integers(0, 30), kind=st.sampled_from(["user", "infra", "oom"]))
    def fail(self, at: int, kind: str) -> None:
        """An attempt reports a failure."""
        job_id, fence = self._token(at)
        life, error = self.lives[job_id], {"class": kind, "code": "engine_killed", "message": "m", "param": None}
        target = "cancelled" if life.status == "cancelling" else "failed"
        if kind == "infra" and self._holds(life, fence):
            target = life.lost(self.now)
        self._end(job_id, fence, "fail", target, lambda s, a: attempts.fail(s, a, fence, error, LIMITS))

    @precondition(lambda self: self.tokens)
    @rule(at=st.integers(0, 30), reason=st.sampled_from(["drain", "lost"]))
    def release(self, at: int, reason: str) -> None:
        """An attempt gives the job back."""
        job_id, fence = self._token(at)
        life = self.lives[job_id]
        target = {"cancelling": "cancelled", "pausing": "paused"}.get(life.status, "queued")
        if self._holds(life, fence):
            if reason == "lost":
                target = life.lost(self.now)
            elif target == "queued":
                life.due = self.now
        self._end(job_id, fence, "release", target, lambda s, a: attempts.release(s, a, fence, reason, LIMITS))

    @invariant()
    def rows_equal_the_model(self) -> None:
        """Status and fence as the model says; at most one live attempt; the diary is a path of legal steps."""
        with read_scope(self.platform) as session:
            jobs = {job.id: job for job in session.scalars(select(Job).where(Job.type == "pretrain"))}
            live = session.execute(select(Attempt.job_id, Attempt.fence).where(Attempt.ended_at.is_(None))).all()
            diary = session.scalars(select(JobEvent).where(JobEvent.type == "state").order_by(JobEvent.seq)).all()
            points = session.scalars(select(Point)).all()
        for job_id, life in self.lives.items():
            row = jobs[job_id]
            assert (row.status, row.fence, row.infra_losses) == (life.status, life.fence, life.losses), life
            path = [event.data["to"] for event in diary if event.job_id == job_id]
            assert path[0] == "queued" and path[-1] == row.status
            assert set(itertools.pairwise(path)) <= STEPS
            assert [fence for id, fence in live if id == job_id] == ([life.fence] if life.status in HELD else [])
            fences = [fence for id, fence in self.accepted if id == job_id]
            assert fences == sorted(fences)
        assert all(point.value == point.fence for point in points), "a point holds the value of the fence it names"

    def _token(self, at: int) -> tuple[str, int]:
        return self.tokens[at % len(self.tokens)]

    def _holds(self, life: Life, fence: int) -> bool:
        return life.fence == fence and life.status in HELD

    def _claim(self, job_id: str | None) -> None:
        with session_scope(self.platform) as session:
            claimed = attempts.claim(session, Wanted(job_id, "cpu"), WORKER, LIMITS)
        ready = {id for id, life in self.lives.items() if life.status == "queued" and life.due <= self.now}
        wanted = ready if job_id is None else ready & {job_id}
        assert (claimed is not None) == bool(wanted)
        if claimed is not None:
            assert claimed.job.id in wanted
            life = self.lives[claimed.job.id]
            life.status, life.fence, life.lease = "running", life.fence + 1, self.now + LIMITS.lease_ms
            self.tokens.append((claimed.job.id, life.fence))

    def _steer(self, verb: str, job_id: str) -> None:
        life = self.lives[job_id]
        moves = {
            "cancel": {"queued": "cancelled", "paused": "cancelled", "running": "cancelling", "pausing": "cancelling",
                       "cancelling": "cancelling", "cancelled": "cancelled"},
            "pause": {"queued": "paused", "running": "pausing", "pausing": "pausing", "paused": "paused"},
            "resume": {"paused": "queued", "queued": "queued"},
        }[verb]  # fmt: skip
        expected = moves.get(life.status)
        arguments = (LIMITS,) if verb == "cancel" else ()
        try:
            with session_scope(self.platform) as session:
                getattr(control, verb)(session, PROJECT, job_id, *arguments)
        except Conflict as error:
            assert error.code == "invalid_state" and expected is None
            return
        assert expected is not None
        if expected == "cancelling" and life.status != "cancelling":
            life.grace = self.now + LIMITS.grace_ms
        if verb == "resume" and life.status == "paused":
            life.due = self.now
        life.status = expected

    def _write(self, job_id: str, fence: int, write: Any) -> Any:
        held = self._holds(self.lives[job_id], fence)
        try:
            with session_scope(self.platform) as session:
                answer = write(session, session.get_one(Attempt, (job_id, fence)))
        except LeaseLost:
            assert not held
            return None
        assert held
        self.accepted.append((job_id, fence))
        return answer

    def _end(self, job_id: str, fence: int, verb: str, target: str, end: Any) -> None:
        life = self.lives[job_id]
        held, known = self._holds(life, fence), life.answers.get(fence)
        try:
            with session_scope(self.platform) as session:
                answer = end(session, session.get_one(Attempt, (job_id, fence)))
        except LeaseLost:
            assert not held and (known is None or known[0] != verb)
            return
        if known is not None:
            assert known == (verb, answer), "the same verb again gets the same answer again"
            return
        assert held and answer == target
        self.accepted.append((job_id, fence))
        life.let_go(verb, target)

    def _complete(self, session: Any, attempt: Attempt) -> str:
        spec = session.get_one(Job, attempt.job_id).resolved_spec
        files = [FileClaim(path, 5, "0" * 64) for path in ("config.json", "model.safetensors")]
        if attempt.ended_at is None:
            for file in files:
                up = file._replace(path=f"artifact/{file.path}")
                artifacts.record_file(session, attempt, attempt.fence, up, "some/key")
        outcome = {"files": files, "metrics": {}, "summary": summary(spec)}
        return artifacts.complete(session, attempt, attempt.fence, outcome)


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(
    max_examples=int(os.environ.get("GROUNDWORK_TEST_LIVES", "100")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
