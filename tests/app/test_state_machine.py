"""The moves one by one, on both databases: leases, budgets, races (R4, R5, R10, R11, F11, F12)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select

from app.db import now_ms
from app.jobs import attempts, control, reports, sweeps, transitions
from app.jobs.limits import Limits
from app.jobs.states import HELD, LEGAL, LIVE, MOVES, TERMINAL, Status
from app.jobs.tables import Attempt, Job, JobInput, Outbox
from app.jobs.transitions import IllegalMove, LeaseLost
from app.jobs.turns import Wanted
from app.platform import Platform, read_scope, session_scope
from app.reaper import Reaper
from ssl_core.events import EVENT
from tests.app.jobs_world import LIMITS, WORKER, make_job, metrics_event, progress_event, ready_dataset, take

PROJECT = "proj_1"


@pytest.fixture
def world(everywhere: Platform) -> Iterator[tuple[Platform, str]]:
    """A platform and a ready dataset in it."""
    yield everywhere, ready_dataset(everywhere, PROJECT)


def queued(world: tuple[Platform, str]) -> str:
    """A queued job's id."""
    with session_scope(world[0]) as session:
        return make_job(session, PROJECT, world[1]).id


def row(platform: Platform, job_id: str) -> Job:
    """The job as it is now."""
    with read_scope(platform) as session:
        return session.get_one(Job, job_id)


def expire(platform: Platform, job_id: str, limits: Limits = LIMITS) -> None:
    """The lease runs out, and the reaper sees it."""
    with session_scope(platform) as session:
        session.get_one(Job, job_id).lease_expires = 0
    with session_scope(platform) as session:
        assert job_id in sweeps.overdue(session, limits)
        sweeps.settle(session, job_id, limits)


def due(platform: Platform, job_id: str) -> None:
    """The backoff is over."""
    with session_scope(platform) as session:
        session.get_one(Job, job_id).available_at = 0


def crash(platform: Platform, job_id: str, code: str, step: int) -> str:
    """One attempt that reaches `step` and dies; returns the job's status."""
    due(platform, job_id)
    with session_scope(platform) as session:
        attempt = take(session, job_id)
        reports.accept_events(session, attempt, attempt.fence, [EVENT.validate_python(progress_event(1, step))])
        error = {"class": "infra", "code": code, "message": "It died.", "param": None}
        return attempts.fail(session, attempt, attempt.fence, error, LIMITS)


def test_every_state_can_be_reached_and_the_terminal_ones_never_left() -> None:
    reached = {move.target for move in MOVES} | {Status.QUEUED}
    assert reached == set(Status)
    assert not [move for move in MOVES if move.source in TERMINAL]
    assert {source for source, _ in LEGAL} == LIVE and HELD <= LIVE


@pytest.mark.parametrize("source", list(Status))
def test_a_move_that_the_table_lacks_cannot_be_written(platform: Platform, source: Status) -> None:
    job_id = queued((platform, ready_dataset(platform, PROJECT)))
    for target in Status:
        if (source, target) in LEGAL:
            continue
        with platform.sessions() as session:
            job = session.get_one(Job, job_id)
            job.status = source
            session.flush()
            with pytest.raises(IllegalMove):
                transitions._apply(session, job, transitions.Step(target, "no"))


def test_many_claimers_take_each_job_once(world: tuple[Platform, str]) -> None:
    platform, _ = world
    jobs = [queued(world) for _ in range(40)]
    start = threading.Barrier(16)

    def claim_all(_: int) -> list[str]:
        start.wait()
        mine = []
        while True:
            with session_scope(platform) as session:
                claimed = attempts.claim(session, Wanted(None, "cpu"), WORKER, LIMITS)
                found = None if claimed is None else claimed.job.id
            if found is None:
                return mine
            mine.append(found)

    with ThreadPoolExecutor(16) as pool:
        taken = [job for mine in pool.map(claim_all, range(16)) for job in mine]
    assert sorted(taken) == sorted(jobs)
    with read_scope(platform) as session:
        assert session.scalar(select(func.max(Attempt.fence))) == 1


def test_a_job_whose_row_is_held_for_something_else_is_waited_for(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    held, rung = threading.Event(), threading.Event()

    def ring() -> None:
        with session_scope(platform) as session:
            sweeps.rung(session, [sweeps.Ring(job_id, "cpu", None)])
            held.set()
            rung.wait(0.5)

    def claim() -> str | None:
        with session_scope(platform) as session:
            claimed = attempts.claim(session, Wanted(None, "cpu"), WORKER, LIMITS)
            return None if claimed is None else claimed.job.id

    with ThreadPoolExecutor(2) as pool:
        ringing = pool.submit(ring)
        assert held.wait(10)
        assert pool.submit(claim).result() == job_id
        rung.set()
        ringing.result()


def test_many_claimers_of_one_job_get_it_once(world: tuple[Platform, str]) -> None:
    platform, _ = world
    for _ in range(5):
        job_id = queued(world)
        start = threading.Barrier(8)

        def claim(_: int, job_id: str = job_id, start: threading.Barrier = start) -> bool:
            start.wait()
            with session_scope(platform) as session:
                return attempts.claim(session, Wanted(job_id, "cpu"), WORKER, LIMITS) is not None

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(claim, range(8))) == 1


def test_an_expired_lease_that_nobody_took_is_revived_by_its_own_fence(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    with session_scope(platform) as session:
        attempt = take(session, job_id)
        session.get_one(Job, job_id).lease_expires = 0
    with session_scope(platform) as session:
        assert attempts.heartbeat(session, job_id, attempt.token_hash, 1, LIMITS) is None
    with session_scope(platform) as session:
        assert sweeps.overdue(session, LIMITS) == []


def test_a_lost_lease_is_queued_again_with_backoff_and_the_old_fence_is_dead(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    with session_scope(platform) as session:
        old = take(session, job_id)
    expire(platform, job_id, Limits(backoff_ms=60_000))
    with session_scope(platform) as session:
        assert attempts.claim(session, Wanted(job_id, "cpu"), WORKER, LIMITS) is None, "the backoff is not over"
        with pytest.raises(LeaseLost):
            attempts.heartbeat(session, job_id, old.token_hash, 1, LIMITS)
    due(platform, job_id)
    with session_scope(platform) as session:
        assert take(session, job_id).fence == 2
        with pytest.raises(LeaseLost):
            event = EVENT.validate_python(metrics_event(1, 1, loss=1.0))
            reports.accept_events(session, session.get_one(Attempt, (job_id, 1)), 1, [event])


def test_the_infra_budget_ends_a_job_that_keeps_dying(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    assert crash(platform, job_id, transitions.KILLED, 7) == "queued"
    assert crash(platform, job_id, transitions.KILLED, 7) == "queued", "a SIGKILL at one step twice proves nothing"
    assert crash(platform, job_id, transitions.KILLED, 9) == "failed"
    job = row(platform, job_id)
    assert job.fence == 3 and "3 times" in (job.error or {})["message"]


def test_the_same_crash_at_the_same_step_twice_is_poison(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    assert crash(platform, job_id, "engine_crashed", 7) == "queued"
    assert crash(platform, job_id, "engine_crashed", 7) == "failed"
    assert (row(platform, job_id).error or {})["code"] == "poison_job"


def test_a_full_disk_at_the_same_step_twice_is_no_poison(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    assert crash(platform, job_id, transitions.DISK_FULL, 8) == "queued"
    assert crash(platform, job_id, transitions.DISK_FULL, 8) == "queued", "someone may free room in the meantime"


@pytest.mark.parametrize("kind", ["user", "data", "oom"])
def test_what_a_retry_cannot_mend_is_not_retried(world: tuple[Platform, str], kind: str) -> None:
    platform, job_id = world[0], queued(world)
    with session_scope(platform) as session:
        attempt = take(session, job_id)
        error = {"class": kind, "code": "c", "message": "m", "param": "p"}
        assert attempts.fail(session, attempt, 1, error, LIMITS) == "failed"
    assert row(platform, job_id).error == error and row(platform, job_id).infra_losses == 0


def test_the_wait_grows_with_every_loss_up_to_ten_minutes() -> None:
    waits = [Limits().backoff(losses) for losses in range(1, 9)]
    assert waits == [10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 600_000, 600_000]


def test_a_drained_attempt_costs_no_budget_and_is_due_at_once(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    with session_scope(platform) as session:
        assert attempts.release(session, take(session, job_id), 1, "drain", LIMITS) == "queued"
    with session_scope(platform) as session:
        assert take(session, job_id).fence == 2
        assert session.get_one(Job, job_id).infra_losses == 0


def test_a_worker_that_ignores_a_cancel_is_overruled_after_the_grace(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    with session_scope(platform) as session:
        attempt = take(session, job_id)
        control.cancel(session, PROJECT, job_id, LIMITS)
    with session_scope(platform) as session:
        assert sweeps.overdue(session, LIMITS) == []
        session.get_one(Job, job_id).grace_expires = now_ms(session) - 1
    with session_scope(platform) as session:
        sweeps.settle(session, job_id, LIMITS)
    assert row(platform, job_id).status == "cancelled"
    with session_scope(platform) as session, pytest.raises(LeaseLost):
        attempts.heartbeat(session, job_id, attempt.token_hash, 1, LIMITS)


def test_a_pausing_job_whose_worker_vanished_is_paused_and_resumes(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    with session_scope(platform) as session:
        take(session, job_id)
        control.pause(session, PROJECT, job_id)
    expire(platform, job_id)
    assert row(platform, job_id).status == "paused" and row(platform, job_id).infra_losses == 0
    with session_scope(platform) as session:
        control.resume(session, PROJECT, job_id)
    with session_scope(platform) as session:
        assert take(session, job_id).fence == 2


def test_a_job_that_nobody_takes_fails_after_the_longest_wait(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    with session_scope(platform) as session:
        session.get_one(Job, job_id).available_at = now_ms(session) - LIMITS.max_wait_ms - 1
    with session_scope(platform) as session:
        assert sweeps.overdue(session, LIMITS) == [job_id]
        sweeps.settle(session, job_id, LIMITS)
    assert (row(platform, job_id).error or {})["code"] == "wait_expired"


def test_a_job_whose_dataset_is_gone_fails_at_the_claim_and_the_next_is_taken(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    next_id = queued(world)
    with session_scope(platform) as session:
        session.get_one(JobInput, (job_id, "dataset")).digest = "0" * 64
    with session_scope(platform) as session:
        assert take(session).job_id == next_id
    assert (row(platform, job_id).error or {})["code"] == "input_gone"


def test_the_reaper_holds_still_for_a_lease_after_its_start_and_after_a_gap(world: tuple[Platform, str]) -> None:
    platform, job_id = world[0], queued(world)
    with session_scope(platform) as session:
        take(session, job_id)
        session.get_one(Job, job_id).lease_expires = 0
    clock = [100.0]
    reaper = Reaper(platform, LIMITS, lambda: clock[0])
    for later in (0.0, 0.4, 0.4):
        clock[0] += later
        assert reaper.sweep() == 0, "one lease from its start"
    clock[0] += 5
    assert reaper.sweep() == 0, "the database was away: from its return"
    for _ in range(2):
        clock[0] += 0.4
        assert reaper.sweep() == 0
    clock[0] += 0.4
    assert reaper.sweep() == 1
    assert row(platform, job_id).status == "queued"


def test_one_job_that_cannot_be_settled_does_not_keep_the_others(
    world: tuple[Platform, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, bad, good = world[0], queued(world), queued(world)
    with session_scope(platform) as session:
        for job_id in (bad, good):
            take(session, job_id)
            session.get_one(Job, job_id).lease_expires = 0
    settle = sweeps.settle

    def broken(session: Any, job_id: str, limits: Limits) -> None:
        if job_id == bad:
            raise ValueError("cannot")
        settle(session, job_id, limits)

    monkeypatch.setattr(sweeps, "settle", broken)
    clock = [0.0]
    reaper = Reaper(platform, LIMITS, lambda: clock[0])
    for clock[0] in (0.4, 0.8, 1.2):
        reaper.sweep()
    assert (row(platform, bad).status, row(platform, good).status) == ("running", "queued")


def test_a_rolled_back_create_leaves_no_doorbell(world: tuple[Platform, str]) -> None:
    platform, dataset = world
    with read_scope(platform) as session:
        before = session.scalar(select(func.count()).select_from(Outbox))
    with platform.sessions() as session:
        make_job(session, PROJECT, dataset)
        session.rollback()
    with read_scope(platform) as session:
        assert session.scalar(select(func.count()).select_from(Outbox)) == before
        assert session.scalar(select(func.count()).where(Job.type == "pretrain")) == 0


def test_a_short_claim_takes_no_training(world: tuple[Platform, str]) -> None:
    platform, project = world
    training = queued(world)
    dataset = ready_dataset(platform, project, b"other")
    with session_scope(platform) as session:
        ingest = session.scalars(select(Job).where(Job.type == "ingest").order_by(Job.id.desc())).first()
        assert ingest is not None and ingest.resolved_spec["dataset"] == dataset
        ingest.status, waiting = "queued", ingest.id
    for job_id, expected in ((training, None), (None, waiting), (None, None)):
        with session_scope(platform) as session:
            claimed = attempts.claim(session, Wanted(job_id, "cpu", short=True), WORKER, LIMITS)
            assert (claimed and claimed.job.id) == expected
    assert take_any(platform) == training


def take_any(platform: Platform) -> str:
    with session_scope(platform) as session:
        return take(session).job_id
