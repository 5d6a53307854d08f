"""From OpenAI's words to a job spec. The job itself is made where all jobs are made, under the same checks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from app.errors import ApiError, Unprocessable
from app.fine_tuning.schemas import FineTuningCreate, SentHyperparameters
from app.jobs import submission
from app.jobs.planning import TrainedSpec
from app.jobs.schemas import JobObject, as_job
from app.settings import Settings
from app.validation import refusal
from ssl_core.spec import FinetuneSpec, TrainSpec

_SPEC: TypeAdapter[TrainedSpec] = TypeAdapter(TrainSpec)
_THEIRS = {"dataset": "training_file", "validation_dataset": "validation_file", "type": "method"}
"""Fields of ours that have another name at this door."""
_SOLVED = ("linear_probe", "knn")
"""Modes of tasks that are solved without a training loop."""
_MAX_RATE = 10.0


@dataclass(frozen=True)
class Wish:
    """A request, read: the spec it asks for, and by how much its rate differs from the recipe's."""

    spec: TrainedSpec
    asked: SentHyperparameters
    names: dict[str, str]
    """Field of the spec -> what the caller wrote it as."""


def create(
    session: Session, settings: Settings, project_id: str, body: FineTuningCreate, sent: submission.Sent
) -> JobObject:
    """A queued job, or the one that the same request made a moment ago.

    Raises what `app.jobs.submission.create` raises, at the fields of this door.
    """
    wish = read(body)
    try:
        spec = _with_rate(session, settings, project_id, wish)
        return as_job(submission.create(session, settings, project_id, spec, sent))
    except ApiError as error:
        raise _in_their_words(error, wish.names) from None


def read(body: FineTuningCreate) -> Wish:
    """What is asked for. Raises Unprocessable that names the field as the caller wrote it."""
    own = dict(body.model_extra or {})
    for ours, theirs in _THEIRS.items():
        if ours in own:
            raise Unprocessable("unknown_field", f"`{ours}` is called `{theirs}` here.", ours)
    asked, place = _hyperparameters(body)
    names = {ours: theirs for ours, theirs in _THEIRS.items() if ours != "type"}
    wanted = own | _plain(body) | {"dataset": body.training_file}
    wanted["type"] = "finetune" if body.method.type == "supervised" else "pretrain"
    if body.validation_file is not None:
        wanted["validation_dataset"] = body.validation_file
    if body.model.startswith("mdl_"):
        wanted["model"] = body.model
    elif body.model != "auto":
        _only_once(own, "backbone", "model")
        wanted["backbone"], names["backbone"] = body.model, "model"
    if asked.n_epochs is not None:
        _only_once(own, "budget", f"{place}.n_epochs")
        wanted["budget"], names["budget"] = {"epochs": asked.n_epochs}, f"{place}.n_epochs"
    if asked.batch_size is not None:
        _only_once(own, "batch_size", f"{place}.batch_size")
        wanted["batch_size"], names["batch_size"] = asked.batch_size, f"{place}.batch_size"
    if asked.learning_rate_multiplier is not None:
        names["optimizer.learning_rate"] = f"{place}.learning_rate_multiplier"
    if wanted["type"] == "finetune":
        wanted.setdefault("task", {"name": "classification"})
    wish = Wish(_validated(wanted, names), asked, names)
    _check_loop(wish, place)
    return wish


def _plain(body: FineTuningCreate) -> dict[str, Any]:
    same = ("seed", "suffix", "metadata")
    return {name: value for name in same if (value := getattr(body, name)) is not None}


def _hyperparameters(body: FineTuningCreate) -> tuple[SentHyperparameters, str]:
    """What was asked for and where; a client may write it in one of two places."""
    other = "pretrain" if body.method.type == "supervised" else "supervised"
    if getattr(body.method, other) is not None:
        message = f"`method.{other}` does not go with the type {body.method.type!r}."
        raise Unprocessable("not_for_this_method", message, f"method.{other}")
    settings = getattr(body.method, body.method.type)
    inner = None if settings is None else settings.hyperparameters
    if inner is not None and body.hyperparameters is not None:
        message = "Hyperparameters are in `method` too; say them there only."
        raise Unprocessable("given_twice", message, "hyperparameters")
    if inner is not None:
        return inner, f"method.{body.method.type}.hyperparameters"
    return body.hyperparameters or SentHyperparameters(), "hyperparameters"


def _only_once(own: dict[str, Any], ours: str, theirs: str) -> None:
    if own.get(ours) is not None:
        raise Unprocessable("given_twice", f"`{ours}` and `{theirs}` say the same; send one of them.", theirs)
    own.pop(ours, None)


def _validated(wanted: dict[str, Any], names: dict[str, str]) -> TrainedSpec:
    try:
        return _SPEC.validate_json(json.dumps(wanted))
    except ValidationError as error:
        found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        refused = refusal(found, wanted)
    raise _in_their_words(refused, names)


def _in_their_words(error: ApiError, names: dict[str, str]) -> ApiError:
    """The same error at the field that the caller wrote."""
    field = error.param or ""
    ours = max((name for name in names if f"{field}.".startswith(f"{name}.")), key=len, default=None)
    if ours is not None:
        error.param = names[ours] + field[len(ours) :]
        error.message = error.message.replace(f"`{field}`", f"`{error.param}`")
    return error


def _check_loop(wish: Wish, place: str) -> None:
    """A task that is solved has no epochs and no rate."""
    if not isinstance(wish.spec, FinetuneSpec):
        return
    mode = getattr(wish.spec.task, "mode", None)
    for name in ("n_epochs", "learning_rate_multiplier"):
        if mode in _SOLVED and getattr(wish.asked, name) is not None:
            message = f"`task.mode` {mode!r} is solved without a training loop, so it takes no `{name}`."
            raise Unprocessable("not_for_this_task", message, f"{place}.{name}")


def _with_rate(session: Session, settings: Settings, project_id: str, wish: Wish) -> TrainedSpec:
    """The spec with the recipe's own rate times what was asked for."""
    times = wish.asked.learning_rate_multiplier
    if times is None:
        return wish.spec
    param = wish.names["optimizer.learning_rate"]
    if wish.spec.optimizer.learning_rate is not None:
        message = f"`optimizer.learning_rate` and `{param}` both set the rate; send one of them."
        raise Unprocessable("given_twice", message, param)
    usual = submission.predict(session, settings, project_id, wish.spec)[0].spec.optimizer.learning_rate
    rate = (usual or 0.0) * times
    if not 0 < rate <= _MAX_RATE:
        message = f"`{param}`: {times} times the recipe's {usual} is {rate}; a rate is above 0 and at most {_MAX_RATE}."
        raise Unprocessable("out_of_range", message, param)
    return wish.spec.model_copy(update={"optimizer": wish.spec.optimizer.model_copy(update={"learning_rate": rate})})
