"""The rules of trained models. A foreign model and a missing one are the same thing here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from app.db import after_commit, now_ms
from app.errors import Conflict, NotFound, Unprocessable
from app.ids import new_id
from app.models import recent
from app.models.tables import Model, ModelExport, ModelFile
from ssl_core.backbones import EncoderSpec
from ssl_core.modalities import AnyModality
from ssl_core.objectives import AnyObjective
from ssl_core.spec import ModelFacts
from ssl_core.tasks import AnyTask


class StoredFile(TypedDict):
    """One file of a model: its path in the folder, and the key under which the store keeps it."""

    path: str
    size: int
    sha256: str
    key: str


class JobResult(TypedDict):
    """What a finished job hands over. `summary` is the model's `config.json`; `lineage` holds at least
    `datasets` (id, role, digest), `base_model` and `spec`."""

    project_id: str
    job_id: str
    name: str
    files: list[StoredFile]
    summary: dict[str, Any]
    metrics: dict[str, Any]
    lineage: dict[str, Any]


def create_from_job(session: Session, **result: Unpack[JobResult]) -> str:
    """Make the model row of a finished job; the same job always yields the same model. Returns the model's id.

    Raises:
        Unprocessable: `invalid_summary` or `missing_file`, it is not a model folder that could be served.
    """
    _check_folder(result["files"], result["summary"])
    known = session.scalar(select(Model.id).where(Model.job_id == result["job_id"]))
    if known:
        return known
    files = result["files"]
    row = Model(
        id=new_id("mdl"), project_id=result["project_id"], job_id=result["job_id"], created_ms=now_ms(session),
        name=result["name"][:200], digest=digest_of(files), bytes=sum(file["size"] for file in files),
        config=result["summary"], metrics=result["metrics"], lineage=result["lineage"], meta={},
    )
    session.add(row)
    session.flush()
    session.add_all(ModelFile(model_id=row.id, position=at, **file) for at, file in enumerate(files))
    session.flush()
    return row.id


class ModelConfig(BaseModel):
    """What of `config.json` this platform relies on (docs/contracts.md §4)."""

    kind: Literal["encoder", "task"]
    modality: AnyModality
    backbone: EncoderSpec
    objective: AnyObjective | None = None
    task: AnyTask | None = None
    classes: list[str] = []
    embed_dim: int = Field(ge=1)
    parameters: int = Field(ge=0)
    max_length: int | None = None


def _check_folder(files: list[StoredFile], summary: dict[str, Any]) -> None:
    try:
        ModelConfig.model_validate_json(json.dumps(summary))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(["summary", *map(str, first["loc"])])
        raise Unprocessable("invalid_summary", f"`{param}`: {first['msg']}.", param) from None
    missing = {"config.json", "model.safetensors"} - {file["path"] for file in files}
    if missing:
        raise Unprocessable("missing_file", f"A model has the file {min(missing)}.", "files")


def digest_of(files: list[StoredFile]) -> str:
    """sha256 over the sorted (path, sha256) pairs."""
    pairs = sorted((file["path"], file["sha256"]) for file in files)
    return hashlib.sha256("".join(f"{path}\0{digest}\n" for path, digest in pairs).encode()).hexdigest()


IMPORT_PREFIX = "imp_"


def import_key(import_id: str) -> str:
    """Where an uploaded public model waits for its import."""
    return f"imports/{import_id}/upload"


def import_file(import_id: str, size: int, sha256: str) -> StoredFile:
    """The one file that an import job reads."""
    return StoredFile(path="upload", size=size, sha256=sha256, key=import_key(import_id))


def add_export(session: Session, model_id: str, format: str, files: list[StoredFile]) -> None:
    """A job has written the model in a public format; one made before is replaced. Of a deleted model: nothing.

    Raises:
        Unprocessable: `missing_file`.
    """
    file = next((each for each in files if each["path"] == f"{format}.zip"), None)
    if file is None:
        raise Unprocessable("missing_file", f"An export has the file {format}.zip.", "files")
    if session.scalar(select(Model.id).where(Model.id == model_id).with_for_update()) is None:
        return
    row = ModelExport(model_id=model_id, format=format, size=file["size"], sha256=file["sha256"], key=file["key"])
    session.merge(row)
    session.flush()


def export_of(session: Session, model_id: str, format: str) -> ModelExport:
    """Raises Conflict 409 `not_exported`."""
    row = session.get(ModelExport, (model_id, format))
    if row is None:
        body = f'{{"type": "export", "model": "{model_id}", "format": "{format}"}}'
        raise Conflict("not_exported", f"Nobody has exported it yet: POST /v1/jobs {body}, and wait for it.", "format")
    return row


def of_project(project_id: str) -> Select[Model]:
    """The one place where models are scoped to their project (R25)."""
    return select(Model).where(Model.project_id == project_id)


def get(session: Session, project_id: str, model_id: str) -> Model:
    """Raises NotFound."""
    row = session.scalar(of_project(project_id).where(Model.id == model_id))
    if row is None:
        raise NotFound("model", model_id)
    return row


def known(session: Session, project_id: str, model_id: str) -> recent.Known:
    """What asking the model needs, and remembered for a second. Raises NotFound."""
    row = get(session, project_id, model_id)
    found = recent.Known(row.id, row.digest, row.config)
    recent.keep(project_id, found)
    return found


def facts(session: Session, project_id: str, model_id: str, param: str) -> ModelFacts:
    """What a job that starts from this model must know.

    The row stays share-locked until the caller's commit, so that a delete at the same moment sees the job.

    Raises:
        Unprocessable: `not_found` at `param`, for a missing and for a foreign model alike.
    """
    row = session.scalar(of_project(project_id).where(Model.id == model_id).with_for_update(read=True))
    if row is None:
        raise Unprocessable("not_found", f"No model with id {model_id!r}.", param)
    known = {key: row.config.get(key) for key in ("modality", "backbone", "objective")}
    # Through JSON: strict values take a list for a tuple only there.
    return ModelFacts.model_validate_json(json.dumps({"id": row.id, **known}))


def digest_and_files(session: Session, model_id: str) -> tuple[str, list[StoredFile]]:
    """For a worker's ticket, which is already authorised for this model. Raises NotFound."""
    row = session.get(Model, model_id)
    if row is None:
        raise NotFound("model", model_id)
    return row.digest, files_of(session, model_id)


def config_of(session: Session, model_id: str) -> dict[str, Any]:
    """`config.json` of a model, for the worker's door. Raises NotFound."""
    row = session.get(Model, model_id)
    if row is None:
        raise NotFound("model", model_id)
    return row.config


def files_of(session: Session, model_id: str) -> list[StoredFile]:
    """The files of a model folder, in the order of its manifest."""
    rows = rows_of(session, model_id)
    return [StoredFile(path=row.path, size=row.size, sha256=row.sha256, key=row.key) for row in rows]


def rows_of(session: Session, model_id: str) -> Sequence[ModelFile]:
    """The same as rows."""
    query = select(ModelFile).where(ModelFile.model_id == model_id)
    return session.scalars(query.order_by(ModelFile.position)).all()


def file_at(session: Session, model_id: str, path: str) -> StoredFile:
    """One file by its exact path in the folder. Raises NotFound."""
    row = session.get(ModelFile, (model_id, path))
    if row is None:
        raise NotFound("model file", path, "path")
    return StoredFile(path=row.path, size=row.size, sha256=row.sha256, key=row.key)


def update(session: Session, row: Model, name: str | None, metadata: dict[str, str] | None) -> Model:
    """Rename a model or replace its metadata; None leaves a field as it is."""
    if name is not None:
        row.name = name
    if metadata is not None:
        row.meta = metadata
    session.flush()
    return row


def lock(session: Session, project_id: str, model_id: str) -> Model:
    """The row, locked against jobs that would start to use it. Raises NotFound."""
    row = session.scalar(of_project(project_id).where(Model.id == model_id).with_for_update())
    if row is None:
        raise NotFound("model", model_id)
    return row


def owned(session: Session, keys: Sequence[str]) -> set[str]:
    """Those of these objects of the store that a model owns: its files, its exports, its archive."""
    columns = (ModelFile.key, ModelExport.key)
    found = {key for column in columns for key in session.scalars(select(column).where(column.in_(keys)))}
    archives = {key.split("/")[1]: key for key in keys if key.startswith("models/")}
    return found | {archives[id] for id in session.scalars(select(Model.id).where(Model.id.in_(archives)))}


def that_saw(session: Session, project_id: str, dataset_id: str) -> list[str]:
    """Ids of the models whose jobs read a dataset, or that began with one of those; oldest first."""
    query = select(Model.id, Model.lineage).where(Model.project_id == project_id).order_by(Model.id)
    found: set[str] = set()
    # A model is younger than the one it began with, so one walk in their order sees every chain.
    for id, lineage in session.execute(query):
        seen = any(ref["id"] == dataset_id for ref in lineage.get("datasets", ()))
        if seen or lineage.get("base_model") in found:
            found.add(id)
    return sorted(found)


def remove(session: Session, row: Model) -> list[str]:
    """Delete the rows; returns the store keys to delete once this is committed."""
    keys = [file["key"] for file in files_of(session, row.id)]
    if row.archive_sha256:
        keys.append(archive_key(row.id))
    keys += session.scalars(select(ModelExport.key).where(ModelExport.model_id == row.id))
    session.execute(delete(ModelExport).where(ModelExport.model_id == row.id))
    session.execute(delete(ModelFile).where(ModelFile.model_id == row.id))
    session.delete(row)
    session.flush()
    after_commit(session, partial(recent.forget, row.project_id, row.id))
    return keys


def archive_key(model_id: str) -> str:
    """Where the native zip of a model lives."""
    return f"models/{model_id}/native.zip"
