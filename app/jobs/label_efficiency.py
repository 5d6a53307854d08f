"""The parts of a label-efficiency job: one training for each arm, number of labels and seed, then the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import Unprocessable
from app.jobs import parts, planning
from app.jobs.parts import Part
from app.jobs.tables import Attempt, Job
from app.models import service as models
from ssl_core.evaluation_spec import (
    ARM_WORDS,
    BASELINES,
    Arm,
    BaselineSpec,
    LabelEfficiencySpec,
    ReportPoint,
    ReportSpec,
)
from ssl_core.spec import JOB_SPEC, DatasetFacts, FinetuneSpec
from ssl_core.tasks import Task

MAX_PARTS = 500
_FULL: dict[str, Any] = {"mode": "full"}
_SETTINGS: dict[Arm, dict[str, Any]] = {
    "full": _FULL, "lora": {"mode": "lora"}, "probe": {"mode": "linear_probe"}, "knn": {"mode": "knn"},
    "self_training": {"mode": "linear_probe", "self_training": True}, "scratch": _FULL, "public": _FULL,
}  # fmt: skip
"""Of the task, by each arm that is one."""
_SOLVED = ("probe", "knn", "self_training", "classical")
"""With every row and nothing to draw, these come out the same."""


def plan(
    session: Session, project_id: str, spec: LabelEfficiencySpec, cpu: Literal["fp32", "bf16"]
) -> tuple[LabelEfficiencySpec, list[Part]]:
    """The spec with its pool and label counts settled, and a part for each point.

    Raises:
        Unprocessable: something it names does not fit; `param` names the field.
    """
    dataset = datasets.facts(session, project_id, spec.dataset, "dataset")
    base = models.facts(session, project_id, spec.model, "model")
    if spec.public_model is not None:
        models.facts(session, project_id, spec.public_model, "public_model")
    rows = spec.task.labels(dataset)
    named = spec.test_dataset, "test_dataset"
    found = planning.check_labelled(session, project_id, named, dataset.modality, spec.task)
    planning.check_classes(found, rows.classes, "test_dataset")
    if spec.test_dataset == spec.dataset:
        raise Unprocessable("same_dataset", "Score on rows that are not trained on: another dataset.", "test_dataset")
    _check_arms(spec, dataset)
    counts = sorted(spec.labels)
    # Only class labels are drawn class by class; of others, rows are.
    most = max(rows.class_counts.values(), default=rows.rows) if spec.task.target == "label" else rows.rows
    if counts[-1] > most:
        each = "of a class" if spec.task.target == "label" else "in all"
        message = f"The dataset has at most {most} labelled rows {each}; {counts[-1]} were asked for."
        raise Unprocessable("too_many_labels", message, "labels")
    pool = spec.pool
    if "classical" in spec.arms:
        pool = spec.pool or _pretraining_pool(session, project_id, spec.model, base.modality.name)
        if pool is not None:
            read = datasets.facts(session, project_id, pool, "pool")
            if read.modality != dataset.modality:
                message = f"{pool} is {read.modality} and the labelled data is {dataset.modality}."
                raise Unprocessable("modality_mismatch", message, "pool")
    spec = spec.model_copy(update={"labels": counts, "pool": pool})
    points = list(_points(spec))
    if len(points) > MAX_PARTS:
        message = f"{len(points)} trainings are asked for (arms x label counts x seeds); {MAX_PARTS} are the most."
        raise Unprocessable("too_many_parts", message, "seeds")
    return spec, [_part(session, project_id, spec, point, dataset, cpu) for point in points]


def finish(session: Session, job: Job, done: dict[str, Job]) -> Part:
    """The last part: the report on those that are done."""
    spec = JOB_SPEC.validate_python(job.resolved_spec, strict=False)
    assert isinstance(spec, LabelEfficiencySpec)
    metric = spec.task.best_metric
    points, spent = [], _minutes(session, list(done.values()))
    for arm, labels, seed in _points(spec):
        part = done[_name(arm, labels, seed)]
        metrics = {name.removeprefix("test/"): value for name, value in (part.result or {}).get("metrics", {}).items()
                   if name.startswith("test/") and isinstance(value, float)}  # fmt: skip
        rows = int((part.result or {}).get("metrics", {}).get("data/training_rows", 0))
        points.append(
            ReportPoint(arm=arm, labels=labels, rows=rows, seed=seed, score=metrics[metric], metrics=metrics,
                        minutes=round(spent.get(part.id, 0.0), 4), job=part.id)
        )  # fmt: skip
    facts = {
        **_odd(spec, done),
        "Pretrained model": spec.model, "Labelled rows": spec.dataset, "Test rows": spec.test_dataset,
        "Task": spec.task.name, "Job": job.id,
    }  # fmt: skip
    return Part(parts.LAST, ReportSpec(title="Label efficiency", metric=metric, points=points, facts=facts), [])


def _minutes(session: Session, jobs: list[Job]) -> dict[str, float]:
    """What the attempts of each job took in all: a job that lay between two of them cost nothing meanwhile."""
    ids = [job.id for job in jobs]
    rows = session.execute(
        select(Attempt.job_id, func.sum(Attempt.ended_at - Attempt.started_at))
        .where(Attempt.job_id.in_(ids), Attempt.ended_at.is_not(None))
        .group_by(Attempt.job_id)
    )
    return {id: int(total or 0) / 60_000 for id, total in rows}


_ODD = {"imbalance": "Largest class by smallest", "flat_rows": "Rows with nothing in them",
        "twins": "Alike, with two labels"}  # fmt: skip


def _odd(spec: LabelEfficiencySpec, done: dict[str, Job]) -> dict[str, str]:
    """What the trainings found odd about the labelled rows, and whether leaks were let through."""
    metrics: dict[str, float] = {}
    for part in done.values():
        metrics |= (part.result or {}).get("metrics", {})
    told = {words: f"{metrics[f'data/{name}']:g}" for name, words in _ODD.items() if f"data/{name}" in metrics}
    return {**told, "Leaks": "allowed" if spec.allow_leakage else "none"}


def _points(spec: LabelEfficiencySpec) -> Iterator[tuple[Arm, int | None, int]]:
    """Cheap arms come first at each count, so that a look at the running job tells something soon."""
    for labels in [*spec.labels, *([None] if spec.all_labels else [])]:
        for arm in sorted(spec.arms, key=list(ARM_WORDS).index):
            seeds = 1 if labels is None and arm in _SOLVED else spec.seeds
            for seed in range(seeds):
                yield arm, labels, seed


def _name(arm: str, labels: int | None, seed: int) -> str:
    return f"{arm}, {'all' if labels is None else labels} labels, seed {seed}"


def _part(
    session: Session, project_id: str, spec: LabelEfficiencySpec, point: tuple[Arm, int | None, int],
    dataset: DatasetFacts, cpu: Literal["fp32", "bf16"],
) -> Part:  # fmt: skip
    arm, labels, seed = point
    rows = {"dataset": spec.dataset, "test_dataset": spec.test_dataset}
    common: dict[str, Any] = {**rows, "labels": labels, "seed": seed, "allow_leakage": spec.allow_leakage}
    if arm == "classical":
        made = BaselineSpec(
            **common, pool=spec.pool, modality=dataset.modality, task=spec.task, resources=spec.resources
        )
        inputs = [planning.dataset_input(session, "dataset", spec.dataset)]
        inputs.append(planning.dataset_input(session, "test", spec.test_dataset))
        if spec.pool is not None:
            inputs.append(planning.dataset_input(session, "pool", spec.pool))
        return Part(_name(*point), made, inputs)
    tuned = FinetuneSpec(
        **common, task=_task_of(spec.task, arm), budget=spec.budget, keep_model=False,
        model=spec.public_model if arm == "public" else spec.model, resources=spec.resources,
        initialization="random" if arm == "scratch" else "pretrained",
        pool=spec.pool if arm not in ("scratch", "public") else None,
    )  # fmt: skip
    resolved = planning.plan(session, project_id, tuned, cpu)
    return Part(_name(*point), resolved.spec, resolved.inputs)


def _task_of(task: Task, arm: Arm) -> Task:
    """The task as this arm learns it. Raises Unprocessable `arm_unavailable`."""
    known, settings = type(task).model_fields, _SETTINGS[arm]
    if settings == _FULL and "mode" not in known:
        return task
    plain = {"self_training": False} if "self_training" in known else {}
    try:
        return type(task).model_validate({**task.model_dump(), **plain, **settings})
    except ValidationError as error:
        told = " and ".join(f"{name} {value!r}" for name, value in settings.items())
        message = f"{task.name} cannot be learned with {told}; leave the arm `{arm}` out."
        raise Unprocessable("arm_unavailable", message, "arms") from error


def _check_arms(spec: LabelEfficiencySpec, dataset: DatasetFacts) -> None:
    for arm in spec.arms:
        if arm in _SETTINGS:
            _task_of(spec.task, arm)
    if "classical" in spec.arms and (dataset.modality, spec.task.name) not in BASELINES:
        known = ", ".join(f"{task} of {modality}" for modality, task in BASELINES)
        message = f"There is no classical model for {spec.task.name} of {dataset.modality}; there is for {known}."
        raise Unprocessable("arm_unavailable", message, "arms")


def _pretraining_pool(session: Session, project_id: str, model_id: str, modality: str) -> str | None:
    """What the model, or the model that it came from, was pretrained on, if that is still here."""
    for ref in models.get(session, project_id, model_id).lineage.get("datasets", []):
        if ref.get("role") == "dataset":
            try:
                found = datasets.facts(session, project_id, ref["id"], "pool")
            except Unprocessable:
                return None
            return str(ref["id"]) if found.modality == modality else None
    return None
