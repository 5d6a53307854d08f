"""From a request to a queued job: references resolved to digests, every number filled in, quotas counted exactly."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import TooMany
from app.jobs import label_efficiency, parts, planning, service
from app.jobs.clock import now
from app.jobs.planning import Resolved, TrainedSpec
from app.jobs.service import InputRef
from app.jobs.tables import Job
from app.models import service as models
from app.settings import Settings
from ssl_core.recipes import Estimate, estimate
from ssl_core.spec import BatchSpec, EmbedSpec, EvaluateSpec, ExportSpec, LabelEfficiencySpec, PredictSpec

UserSpec = TrainedSpec | EvaluateSpec | PredictSpec | EmbedSpec | BatchSpec | LabelEfficiencySpec | ExportSpec

_LARGE, _COUNTED_SECONDS, _MOST_PROJECTS = 10_000, 5.0, 10_000
_far_below: dict[str, float] = {}
"""Until when a project need not be counted."""
RESEND_MS = 10 * 60_000
"""A client's own retry comes within seconds; an equal body after this long is a wish for another run."""


@dataclass(frozen=True)
class Sent:
    """The body as it came, and whether the client says that it sends it again on its own."""

    body: dict[str, Any]
    again: bool = False


def create(session: Session, settings: Settings, project_id: str, spec: UserSpec, sent: Sent) -> Job:
    """A queued job for this request, or the job that the same request made a moment ago.

    Raises:
        Unprocessable: a reference or a number does not fit; `param` names it.
        Conflict: 409 `not_ready`, a dataset is still being ingested.
        TooMany: 429 `concurrency_limit`.
    """
    _one_at_a_time(session, project_id)
    if sent.again:
        known = _same_request(session, project_id, sent.body)
        if known is not None:
            return known
    check_limit(session, settings, project_id)
    if isinstance(spec, LabelEfficiencySpec):
        filled, made = label_efficiency.plan(session, project_id, spec, settings.cpu_precision)
        parent = service.enqueue(session, project_id=project_id, spec=filled, inputs=[], sent=sent.body)
        parts.add(session, parent, made)
        return parent
    if isinstance(spec, ExportSpec):
        models.facts(session, project_id, spec.model, "model")
        inputs = [InputRef("model", spec.model, models.digest_and_files(session, spec.model)[0])]
        return service.enqueue(session, project_id=project_id, spec=spec, inputs=inputs, sent=sent.body)
    if isinstance(spec, EvaluateSpec):
        spec = planning.evaluation(session, project_id, spec)
        inputs = planning.evaluation_inputs(session, project_id, spec)
        return service.enqueue(session, project_id=project_id, spec=spec, inputs=inputs, sent=sent.body)
    if isinstance(spec, PredictSpec | EmbedSpec):
        inputs = planning.row_inputs(session, project_id, spec)
        return service.enqueue(session, project_id=project_id, spec=spec, inputs=inputs, sent=sent.body)
    if isinstance(spec, BatchSpec):
        inputs = planning.batch_inputs(session, project_id, spec)
        return service.enqueue(session, project_id=project_id, spec=spec, inputs=inputs, sent=sent.body)
    resolved = planning.plan(session, project_id, spec, settings.cpu_precision)
    return service.enqueue(session, project_id=project_id, spec=resolved.spec, inputs=resolved.inputs, sent=sent.body)


def check_limit(session: Session, settings: Settings, project_id: str) -> None:
    """Raises TooMany 429 `concurrency_limit`.

    Exact near the limit. A project that was below half of a limit of thousands a few seconds ago is not counted again:
    counting takes as long as there are jobs, and no project makes so many in so few seconds.
    """
    most = settings.max_queued_jobs
    if most >= _LARGE and _far_below.get(project_id, 0.0) > time.monotonic():
        return
    count = service.live_count(session, project_id, most)
    if count >= most:
        message = f"{most} jobs are queued or running, which is the limit of this project."
        raise TooMany("concurrency_limit", message, retry_after=10)
    if most >= _LARGE and count < most // 2:
        if len(_far_below) >= _MOST_PROJECTS:
            _far_below.clear()
        _far_below[project_id] = time.monotonic() + _COUNTED_SECONDS


def predict(session: Session, settings: Settings, project_id: str, spec: TrainedSpec) -> tuple[Resolved, Estimate]:
    """What a job would be and need, without making it. Raises what `create` raises for the spec."""
    resolved = planning.plan(session, project_id, spec, settings.cpu_precision)
    return resolved, planning.in_our_words(lambda: estimate(resolved.spec, resolved.dataset))


def _same_request(session: Session, project_id: str, body: dict[str, Any]) -> Job | None:
    digest = service.digest_of(body)
    mine = (Job.spec_digest == digest, Job.type != "ingest", Job.parent_id.is_(None))
    query = service.of_project(project_id).where(*mine)
    return session.scalar(query.where(Job.created_at > now(session) - RESEND_MS).order_by(Job.id.desc()).limit(1))


def _one_at_a_time(session: Session, project_id: str) -> None:
    """Creates of one project take turns, so that the quota is exact; SQLite's transactions already do."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"jobs:{project_id}", 0))))
