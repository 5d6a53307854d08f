"""What Prometheus and the log are told of jobs.

Gauges are counted in the database at each scrape, so that any API process tells the same; steps are counted, and
logged with the job's id, by the process that made them.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from app import telemetry
from app.db import after_commit
from app.jobs.clock import now
from app.jobs.states import HELD, LIVE, Outcome, Status
from app.jobs.tables import PARTS, Job, Outbox

log = structlog.get_logger(__name__)

_QUEUES = ("cpu", "gpu")


def gather(session: Session) -> Iterable[GaugeMetricFamily]:
    """Live jobs, the queues (what workers are scaled by), leases, and doorbells that still wait to be rung."""
    at = now(session)
    due = case(((Job.status == Status.QUEUED) & (Job.available_at <= at), Job.available_at))
    expired = func.sum(case((Job.status.in_(HELD) & (Job.lease_expires < at), 1), else_=0))
    columns = (Job.queue, Job.type, Job.status)
    query = select(*columns, func.count(), func.min(due), expired).where(Job.status.in_(LIVE)).group_by(*columns)
    rows = session.execute(query).all()
    jobs = GaugeMetricFamily("groundwork_jobs", "Jobs that have not ended", labels=["queue", "type", "status"])
    for queue, kind, status, count, _, _ in rows:
        jobs.add_metric([queue, kind, status], count)
    yield jobs
    work = [row for row in rows if row[0] != PARTS]
    wanted = GaugeMetricFamily("groundwork_queue_jobs", "Jobs that wait for a worker or have one", labels=["queue"])
    oldest = GaugeMetricFamily("groundwork_queue_oldest_seconds", "Wait of the job next in turn", labels=["queue"])
    for queue in sorted({*_QUEUES, *(row[0] for row in work)}):
        mine = [row for row in work if row[0] == queue]
        wanted.add_metric([queue], sum(row[3] for row in mine if row[2] == Status.QUEUED or row[2] in HELD))
        waits = [(at - row[4]) / 1000 for row in mine if row[4] is not None]
        oldest.add_metric([queue], max(waits, default=0.0))
    yield from (wanted, oldest)
    held, late = sum(row[3] for row in work if row[2] in HELD), sum(row[5] for row in work)
    leases = GaugeMetricFamily("groundwork_leases", "Leases of workers on jobs", labels=["state"])
    leases.add_metric(["live"], held - late)
    leases.add_metric(["expired"], late)
    yield leases
    doorbells = session.execute(select(func.count()).select_from(Outbox)).scalar_one()
    yield GaugeMetricFamily("groundwork_doorbells_waiting", "Doorbells still to be rung", value=doorbells)


def moved(session: Session, job: Job, source: Status, outcome: Outcome | None = None) -> None:
    """Count and log a step of a job once its transaction is committed."""
    kind, target, attempt = job.type, str(job.status), job.fence
    seconds = (job.finished_at - job.started_at) / 1000 if job.finished_at and job.started_at else None

    def tell() -> None:
        telemetry.moved(kind, source, target, outcome)
        if seconds is not None:
            telemetry.lasted(kind, target, seconds)
        log.info("job_moved", job_id=job.id, type=kind, source=source, target=target, attempt=attempt)

    after_commit(session, tell)
