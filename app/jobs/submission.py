"""From a request to a queued job: references resolved to digests, every number filled in, quotas counted exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import TooMany, Unprocessable
from app.jobs import service
from app.jobs.clock import now
from app.jobs.service import InputRef
from app.jobs.tables import Job
from app.models import service as models
from app.settings import Settings
from ssl_core.errors import SpecError
from ssl_core.recipes import Estimate, estimate, resolve
from ssl_core.spec import DatasetFacts, ExportSpec, FinetuneSpec, PretrainSpec, TargetFacts
from ssl_core.tasks import Task
from ssl_core.tasks.classification import Classification

RESEND_MS = 10 * 60_000
"""A client's own retry comes within seconds; an equal body after this long is a wish for another run."""
UserSpec = PretrainSpec | FinetuneSpec
T = TypeVar("T")


@dataclass(frozen=True)
class Sent:
    """The body as it came, and whether the client says that it sends it again on its own."""

    body: dict[str, Any]
    again: bool = False


@dataclass(frozen=True)
class Resolved:
    """A spec with nothing left to choose, and what it reads."""

    spec: UserSpec
    dataset: DatasetFacts
    inputs: list[InputRef]


def create(session: Session, settings: Settings, project_id: str, spec: UserSpec | ExportSpec, sent: Sent) -> Job:
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
    if isinstance(spec, ExportSpec):
        models.facts(session, project_id, spec.model, "model")
        inputs = [InputRef("model", spec.model, models.digest_and_files(session, spec.model)[0])]
        check_limit(session, settings, project_id)
        return service.enqueue(session, project_id=project_id, spec=spec, inputs=inputs, sent=sent.body)
    resolved = plan(session, project_id, spec, settings.cpu_precision)
    check_limit(session, settings, project_id)
    return service.enqueue(session, project_id=project_id, spec=resolved.spec, inputs=resolved.inputs, sent=sent.body)


def check_limit(session: Session, settings: Settings, project_id: str) -> None:
    """Raises TooMany 429 `concurrency_limit`."""
    if service.live_count(session, project_id) >= settings.max_queued_jobs:
        message = f"{settings.max_queued_jobs} jobs are queued or running, which is the limit of this project."
        raise TooMany("concurrency_limit", message, retry_after=10)


def predict(session: Session, settings: Settings, project_id: str, spec: UserSpec) -> tuple[Resolved, Estimate]:
    """What a job would be and need, without making it. Raises what `create` raises for the spec."""
    resolved = plan(session, project_id, spec, settings.cpu_precision)
    return resolved, _in_our_words(lambda: estimate(resolved.spec, resolved.dataset))


def plan(session: Session, project_id: str, spec: UserSpec, cpu: Literal["fp32", "bf16"] = "fp32") -> Resolved:
    """Look up what the spec names, inside the project, and fill in what it leaves open."""
    dataset = datasets.facts(session, project_id, spec.dataset, "dataset")
    base = None if spec.model is None else models.facts(session, project_id, spec.model, "model")
    inputs = [_dataset(session, "dataset", spec.dataset)]
    if isinstance(spec, PretrainSpec):
        if spec.probe is not None:
            _check_beside(session, project_id, (spec.probe.dataset, "probe.dataset"), dataset, Classification())
            inputs.append(_dataset(session, "probe", spec.probe.dataset))
    elif spec.validation_dataset is not None:
        named = spec.validation_dataset, "validation_dataset"
        held_out = _check_beside(session, project_id, named, dataset, spec.task)
        _check_classes(held_out, spec.task.labels(dataset))
        inputs.append(_dataset(session, "validation", spec.validation_dataset))
    if spec.model is not None:
        inputs.append(InputRef("model", spec.model, models.digest_and_files(session, spec.model)[0]))
    if isinstance(spec, PretrainSpec):
        return Resolved(_in_our_words(lambda: resolve(spec, dataset, base, cpu_precision=cpu)), dataset, inputs)
    return Resolved(_in_our_words(lambda: resolve(spec, dataset, base, cpu_precision=cpu)), dataset, inputs)


def _in_our_words(work: Callable[[], T]) -> T:
    """A SpecError is the request's fault: 422 at its field."""
    try:
        return work()
    except SpecError as error:
        raise Unprocessable(error.code, error.message, error.param) from None


def _dataset(session: Session, role: service.Role, dataset_id: str) -> InputRef:
    return InputRef(role, dataset_id, datasets.digest_and_files(session, dataset_id)[0])


def _check_beside(
    session: Session, project_id: str, named: tuple[str, str], beside: DatasetFacts, task: Task
) -> TargetFacts:
    """What a dataset for scoring has of the task's labels; `named`: its id, and the field that says it."""
    dataset_id, param = named
    facts = datasets.facts(session, project_id, dataset_id, param)
    if facts.modality != beside.modality:
        message = f"{dataset_id} is {facts.modality} and the training data is {beside.modality}."
        raise Unprocessable("modality_mismatch", message, param)
    labels = task.labels(facts)
    if labels.rows < 2:
        message = f"{dataset_id} has {labels.rows} labelled rows; scoring needs at least 2."
        raise Unprocessable("no_labels", message, param)
    return labels


def _check_classes(held_out: TargetFacts, dataset: TargetFacts) -> None:
    unknown = sorted(set(held_out.classes) - set(dataset.classes))
    if unknown:
        message = f"It has classes that the training data has not: {', '.join(unknown[:5])}."
        raise Unprocessable("unknown_classes", message, "validation_dataset")


def _same_request(session: Session, project_id: str, body: dict[str, Any]) -> Job | None:
    query = service.of_project(project_id).where(Job.spec_digest == service.digest_of(body), Job.type != "ingest")
    return session.scalar(query.where(Job.created_at > now(session) - RESEND_MS).order_by(Job.id.desc()).limit(1))


def _one_at_a_time(session: Session, project_id: str) -> None:
    """Creates of one project take turns, so that the quota is exact; SQLite's transactions already do."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"jobs:{project_id}", 0))))
