"""Whose turn it is, on both databases: projects in turn, then priority, then age."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from app.db import now_ms
from app.jobs import attempts, planning, service
from app.jobs.tables import Job
from app.jobs.turns import Wanted
from app.platform import Platform, session_scope
from ssl_core.spec import PretrainSpec
from tests.app.jobs_world import LIMITS, WORKER, make_job, pretrain_body, ready_dataset


def queue(platform: Platform, project: str, count: int, priority: int = 0) -> list[str]:
    """So many queued jobs of a project, in the order in which they were made."""
    dataset = ready_dataset(platform, project)
    made = []
    for _ in range(count):
        with session_scope(platform) as session:
            job = make_job(session, project, dataset)
            job.rank = -priority
            made.append(job.id)
    return made


def taken(platform: Platform, release: bool = False) -> tuple[str, str] | None:
    """Project and id of the job that one claim gets; `release`: the job ends at once."""
    with session_scope(platform) as session:
        claimed = attempts.claim(session, Wanted(None, "cpu"), WORKER, LIMITS)
        if claimed is None:
            return None
        found = claimed.job.project_id, claimed.job.id
        if release:
            claimed.job.status = "succeeded"
        return found


def projects(platform: Platform, count: int, release: bool = False) -> list[str]:
    """The projects that so many claims serve."""
    found = [taken(platform, release) for _ in range(count)]
    return [each[0] for each in found if each]


def test_a_project_with_a_few_jobs_is_not_behind_one_that_came_first_with_many(everywhere: Platform) -> None:
    queue(everywhere, "proj_1", 8)
    queue(everywhere, "proj_2", 2)
    assert sorted(projects(everywhere, 4)) == ["proj_1", "proj_1", "proj_2", "proj_2"]
    assert projects(everywhere, 9) == ["proj_1"] * 6, "nothing stays behind when only one project still waits"


def test_one_worker_that_ends_each_job_before_the_next_goes_round(everywhere: Platform) -> None:
    for project in ("proj_1", "proj_2", "proj_3"):
        queue(everywhere, project, 4)
    served = []
    for _ in range(6):
        served += projects(everywhere, 1, release=True)
        with session_scope(everywhere) as session:  # jobs take longer than the clock's millisecond
            began = now_ms(session)
            while now_ms(session) == began:
                pass
    assert sorted(served[:3]) == ["proj_1", "proj_2", "proj_3"]
    assert served[3:] == served[:3]


def test_claims_that_overlap_serve_different_projects(everywhere: Platform) -> None:
    if everywhere.engine.dialect.name == "sqlite":
        pytest.skip("its transactions never overlap")
    queue(everywhere, "proj_1", 4)
    queue(everywhere, "proj_2", 4)
    with everywhere.sessions() as first, everywhere.sessions() as second:
        found = [attempts.claim(each, Wanted(None, "cpu"), WORKER, LIMITS) for each in (first, second)]
        assert sorted(each.job.project_id for each in found if each) == ["proj_1", "proj_2"]
        more = attempts.claim(second, Wanted(None, "cpu"), WORKER, LIMITS)
        assert more is not None, "a project that another claim takes from is not closed, only second choice"


def test_within_a_project_the_higher_priority_goes_first_and_then_the_older(everywhere: Platform) -> None:
    low, usual, high = (queue(everywhere, "proj_1", 2, priority) for priority in (-5, 0, 7))
    found = [taken(everywhere) for _ in range(6)]
    assert [each[1] for each in found if each] == [*high, *usual, *low]


def test_a_high_priority_takes_no_turn_of_another_project(everywhere: Platform) -> None:
    queue(everywhere, "proj_1", 3, priority=100)
    queue(everywhere, "proj_2", 1)
    assert sorted(projects(everywhere, 2)) == ["proj_1", "proj_2"]


def test_a_job_that_waits_for_its_next_attempt_is_not_taken_for_its_project(everywhere: Platform) -> None:
    (later,) = queue(everywhere, "proj_1", 1)
    with session_scope(everywhere) as session:
        session.get_one(Job, later).available_at = now_ms(session) + 60_000
    queue(everywhere, "proj_2", 1)
    assert projects(everywhere, 2) == ["proj_2"]


def test_the_priority_of_a_request_is_the_jobs(everywhere: Platform) -> None:
    spec = PretrainSpec.model_validate(
        pretrain_body(ready_dataset(everywhere, "proj_1"), resources={"priority": 42})
    )
    with session_scope(everywhere) as session:
        plan = planning.plan(session, "proj_1", spec)
        assert service.enqueue(session, project_id="proj_1", spec=plan.spec, inputs=plan.inputs).rank == -42


@pytest.fixture
def asked(platform: Platform) -> list[tuple[str, Any]]:
    """Every statement that the database was asked from here on, with its arguments."""
    seen: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, arguments: Any, _context: object, _many: bool) -> None:
        seen.append((statement, arguments))

    event.listen(platform.engine, "before_cursor_execute", note)
    return seen


def plan_of(platform: Platform, asked: list[tuple[str, Any]], word: str) -> str:
    """How SQLite would find the rows of the last statement that holds this word."""
    statement, arguments = next(each for each in reversed(asked) if word in each[0])
    with platform.engine.connect() as connection:
        return str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", arguments).all())


def test_the_look_for_whose_turn_it_is_reads_no_job_but_by_an_index(
    platform: Platform, asked: list[tuple[str, Any]]
) -> None:
    queue(platform, "proj_1", 1)
    assert taken(platform)
    plan = plan_of(platform, asked, "RECURSIVE")
    assert "ix_jobs_claim" in plan and "ix_jobs_turn" in plan and "SCAN jobs" not in plan


def test_a_create_counts_live_jobs_without_reading_the_ended_ones(
    platform: Platform, asked: list[tuple[str, Any]]
) -> None:
    queue(platform, "proj_1", 3)
    with session_scope(platform) as session:
        counts = [service.live_count(session, "proj_1", most) for most in (2, 10)]
    assert counts == [2, 3]
    assert "ix_jobs_live (project_id=? AND status=?)" in plan_of(platform, asked, "count(*)")
