"""From a request to a spec with nothing left to choose: references looked up, digests pinned, numbers filled in."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from app.datasets import plain
from app.datasets import service as datasets
from app.errors import NotFound, Unprocessable
from app.jobs import service
from app.jobs.service import InputRef
from app.models import service as models
from ssl_core.backbones import FAMILIES
from ssl_core.errors import SpecError
from ssl_core.modalities import MODALITIES
from ssl_core.recipes import resolve
from ssl_core.spec import (
    BatchSpec,
    DatasetFacts,
    EmbedSpec,
    EvaluateSpec,
    FinetuneSpec,
    PredictSpec,
    PretrainSpec,
    TargetFacts,
)
from ssl_core.tasks import AnyTask, Task
from ssl_core.tasks.classification import Classification

TrainedSpec = PretrainSpec | FinetuneSpec
T = TypeVar("T")


@dataclass(frozen=True)
class Resolved:
    """A spec with nothing left to choose, and what it reads."""

    spec: TrainedSpec
    dataset: DatasetFacts
    inputs: list[InputRef]


def plan(session: Session, project_id: str, spec: TrainedSpec, cpu: Literal["fp32", "bf16"] = "fp32") -> Resolved:
    """Look up what the spec names, inside the project, and fill in what it leaves open."""
    dataset = datasets.facts(session, project_id, spec.dataset, "dataset")
    base = None if spec.model is None else models.facts(session, project_id, spec.model, "model")
    inputs = [dataset_input(session, "dataset", spec.dataset)]
    if isinstance(spec, PretrainSpec):
        if spec.probe is not None:
            named = spec.probe.dataset, "probe.dataset"
            check_labelled(session, project_id, named, dataset.modality, Classification())
            inputs.append(dataset_input(session, "probe", spec.probe.dataset))
    else:
        held_out: tuple[tuple[service.Role, str | None], ...] = (
            ("validation", spec.validation_dataset), ("test", spec.test_dataset),
        )  # fmt: skip
        for role, beside in held_out:
            if beside is not None:
                param = f"{role}_dataset"
                found = check_labelled(session, project_id, (beside, param), dataset.modality, spec.task)
                check_classes(found, spec.task.labels(dataset).classes, param)
                inputs.append(dataset_input(session, role, beside))
        spec = _with_pool(session, project_id, spec, dataset.modality)
        if spec.pool is not None:
            inputs.append(dataset_input(session, "pool", spec.pool))
    if spec.model is not None:
        inputs.append(InputRef("model", spec.model, models.digest_and_files(session, spec.model)[0]))
    # Twice the same line: the type of what is resolved follows from the type of the spec.
    if isinstance(spec, PretrainSpec):
        return Resolved(in_our_words(lambda: resolve(spec, dataset, base, cpu_precision=cpu)), dataset, inputs)
    return Resolved(in_our_words(lambda: resolve(spec, dataset, base, cpu_precision=cpu)), dataset, inputs)


def _with_pool(session: Session, project_id: str, spec: FinetuneSpec, modality: str) -> FinetuneSpec:
    """The spec with the pool that its test data is compared with, or that its task reads; else it needs none."""
    if spec.pool is not None:
        found = datasets.facts(session, project_id, spec.pool, "pool")
        if found.modality != modality:
            message = f"{spec.pool} is {found.modality} and the training data is {modality}."
            raise Unprocessable("modality_mismatch", message, "pool")
        return spec
    reads = spec.task.reads_pool()
    if spec.model is not None and (reads or (spec.test_dataset is not None and spec.initialization != "random")):
        spec = spec.model_copy(update={"pool": learned_from(session, project_id, spec.model, modality).get("pool")})
    if reads and spec.pool is None:
        message = "The task reads unlabelled rows, and what the model was pretrained on is not here; name a dataset."
        raise Unprocessable("no_pool", message, "pool")
    return spec


def learned_from(session: Session, project_id: str, model_id: str, modality: str) -> dict[str, str]:
    """Datasets of that modality that a model has learned from and that are still here: `pool`, `training`.

    A model with a task knows its training data, and the pool that its base was pretrained on.
    """
    model = models.get(session, project_id, model_id)
    tuned = model.config.get("task") is not None
    found: dict[str, str] = {}
    for ref in model.lineage.get("datasets", []):
        role = {"pool": "pool", "dataset": "training" if tuned else "pool"}.get(ref.get("role"))
        if role is None:
            continue
        try:
            facts = datasets.facts(session, project_id, ref["id"], role)
        except Unprocessable:  # deleted since
            continue
        if facts.modality == modality:
            found[role] = str(ref["id"])
    base = model.lineage.get("base_model")
    if "pool" not in found and base is not None:
        with suppress(NotFound):  # deleted since
            found |= {k: v for k, v in learned_from(session, project_id, base, modality).items() if k == "pool"}
    return found


def in_our_words(work: Callable[[], T]) -> T:
    """A SpecError is the request's fault: 422 at its field."""
    try:
        return work()
    except SpecError as error:
        raise Unprocessable(error.code, error.message, error.param) from None


def dataset_input(session: Session, role: service.Role, dataset_id: str) -> InputRef:
    """A dataset in that role, pinned to what it holds now."""
    return InputRef(role, dataset_id, datasets.digest_of_dataset(session, dataset_id))


def check_labelled(
    session: Session, project_id: str, named: tuple[str, str], modality: str, task: Task
) -> TargetFacts:
    """What a dataset for scoring has of the task's labels; `named`: its id, and the field that says it."""
    dataset_id, param = named
    facts = datasets.facts(session, project_id, dataset_id, param)
    if facts.modality != modality:
        message = f"{dataset_id} is {facts.modality} and the training data is {modality}."
        raise Unprocessable("modality_mismatch", message, param)
    labels = task.labels(facts)
    if labels.rows < 2:
        message = f"{dataset_id} has {labels.rows} labelled rows; scoring needs at least 2."
        raise Unprocessable("no_labels", message, param)
    return labels


def check_classes(held_out: TargetFacts, known: list[str], param: str) -> None:
    """Some class in common with the training data; the job names rows of other classes, and scores without them."""
    if held_out.classes and not set(held_out.classes) & set(known):
        message = f"None of its classes is one of the training data: {', '.join(held_out.classes[:5])}."
        raise Unprocessable("unknown_classes", message, param)


def evaluation(session: Session, project_id: str, spec: EvaluateSpec) -> EvaluateSpec:
    """The spec with what its model learned from, of the datasets that are still here; of a model with a task."""
    models.facts(session, project_id, spec.model, "model")
    config = models.config_of(session, spec.model)
    modality = str(config["modality"]["name"])
    named = {"training_dataset": spec.training_dataset, "pool": spec.pool}
    for param, dataset in named.items():
        if dataset is not None and datasets.facts(session, project_id, dataset, param).modality != modality:
            raise Unprocessable("modality_mismatch", f"{dataset} is not of {modality}, which the model reads.", param)
    if config.get("task") is None:
        return spec.model_copy(update=dict.fromkeys(named))
    found = learned_from(session, project_id, spec.model, modality)
    lineage = {"training_dataset": found.get("training"), "pool": found.get("pool")}
    return spec.model_copy(update={param: dataset or lineage[param] for param, dataset in named.items()})


def evaluation_inputs(session: Session, project_id: str, spec: EvaluateSpec) -> list[InputRef]:
    """What an evaluation that `evaluation` completed reads: a model and a dataset of its modality; labelled, in its
    classes, if it has a task."""
    config = models.config_of(session, spec.model)
    modality = str(config["modality"]["name"])
    if config.get("task") is None:
        _check_pretext(session, project_id, spec, config)
    else:
        task: Task = TypeAdapter(AnyTask).validate_json(json.dumps(config["task"]))
        found = check_labelled(session, project_id, (spec.dataset, "dataset"), modality, task)
        check_classes(found, list(config.get("classes", [])), "dataset")
    digest = models.digest_and_files(session, spec.model)[0]
    inputs = [InputRef("model", spec.model, digest), dataset_input(session, "dataset", spec.dataset)]
    known: tuple[tuple[service.Role, str | None], ...] = (("training", spec.training_dataset), ("pool", spec.pool))
    return [*inputs, *(dataset_input(session, role, dataset) for role, dataset in known if dataset is not None)]


def row_inputs(session: Session, project_id: str, spec: PredictSpec | EmbedSpec) -> list[InputRef]:
    """What a model is asked about each row of: a dataset of its modality; for answers it has a task."""
    models.facts(session, project_id, spec.model, "model")
    config = models.config_of(session, spec.model)
    if isinstance(spec, PredictSpec) and config.get("task") is None:
        message = "It is an encoder without a task; fine-tune it first, or ask for vectors with a job of type embed."
        raise Unprocessable("no_task", message, "model")
    if isinstance(spec, EmbedSpec) and spec.pooling == "cls" and not FAMILIES[config["backbone"]["family"]][1]:
        message = "This model's encoder has no tokens: it offers the poolings mean, max, not 'cls'."
        raise Unprocessable("unsupported_pooling", message, "pooling")
    modality = str(config["modality"]["name"])
    if not (isinstance(spec, EmbedSpec) and _reads_a_part(session, project_id, spec.dataset, modality)):
        _check_modality(session, project_id, spec.dataset, modality)
    digest = models.digest_and_files(session, spec.model)[0]
    return [InputRef("model", spec.model, digest), dataset_input(session, "dataset", spec.dataset)]


def _reads_a_part(session: Session, project_id: str, dataset: str, modality: str) -> bool:
    """Whether the model embeds items that have some of its columns only, such as these."""
    reader, facts = MODALITIES[modality], datasets.facts(session, project_id, dataset, "dataset")
    return reader.partial and MODALITIES[facts.modality].columns.keys() <= reader.columns.keys()


def batch_inputs(session: Session, project_id: str, spec: BatchSpec) -> list[InputRef]:
    """A file of requests, and the model that its first line names; None of it is looked into here."""
    file = plain.of_requests(session, project_id, spec.file, "input_file_id")
    inputs = [InputRef("upload", file.id, file.sha256)]
    if spec.model is not None:
        models.facts(session, project_id, spec.model, "model")
        inputs.append(InputRef("model", spec.model, models.digest_and_files(session, spec.model)[0]))
    return inputs


def _check_modality(session: Session, project_id: str, dataset: str, modality: str) -> DatasetFacts:
    facts = datasets.facts(session, project_id, dataset, "dataset")
    if facts.modality != modality:
        message = f"{dataset} is {facts.modality} and the model reads {modality}."
        raise Unprocessable("modality_mismatch", message, "dataset")
    return facts


def _check_pretext(session: Session, project_id: str, spec: EvaluateSpec, config: dict[str, Any]) -> None:
    """A model without a task needs an objective to be measured by, or two towers, and data of its modality."""
    modality = str(config["modality"]["name"])
    if config.get("objective") is None and config["backbone"].get("family") != "dual":
        message = "It has neither a task nor an objective to be measured by; fine-tune it first."
        raise Unprocessable("no_task", message, "model")
    facts = _check_modality(session, project_id, spec.dataset, modality)
    if facts.rows < 2:
        raise Unprocessable("dataset_too_small", f"{spec.dataset} has {facts.rows} rows; scoring needs 2.", "dataset")
