"""The rules of datasets: made from an upload, ingested by a job, read by other jobs. A foreign one is a missing one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session, undefer

from app.datasets import plain, quota
from app.datasets.tables import Dataset, DatasetFile, UploadPart
from app.db import now_ms
from app.errors import Conflict, NotFound, Unprocessable
from app.ids import new_id
from app.jobs import service as jobs
from app.settings import Settings
from app.storage import Stored
from app.webhooks import service as webhooks
from ssl_core.spec import DatasetFacts, IngestSpec

Status = Literal["uploaded", "ingesting", "ready", "invalid"]
Purpose = Literal["fine-tune", "pretrain", "batch"]
_ID = re.compile(r"ds_[0-9a-z]{1,37}")
_FACTS = ("classes", "class_counts", "characters", "width", "height", "channels", "numbers", "targets")


class StoredFile(TypedDict):
    """One file of a dataset folder: its path there, and the key under which the store keeps it."""

    path: str
    size: int
    sha256: str
    key: str


@dataclass(frozen=True)
class NewDataset:
    """An upload whose bytes lie in the store already."""

    id: str
    stored: Stored
    filename: str
    purpose: Purpose = "pretrain"
    name: str | None = None
    modality: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def new_dataset_id() -> str:
    """An id before its row, because the bytes come first."""
    return new_id("ds")


def upload_key(dataset_id: str) -> str:
    """Where the uploaded bytes lie."""
    return f"datasets/{dataset_id}/upload"


def clean_filename(sent: str) -> str:
    """The last part of what the client called the file, at most 255 characters. A name only, never a path."""
    return re.split(r"[/\\]", sent)[-1][-255:] or "upload"


def create(session: Session, settings: Settings, project_id: str, new: NewDataset) -> Dataset:
    """The row and its ingest job, in one transaction. The bytes are counted by the caller's hold until then.

    A file of a purpose of `plain.SENT` is kept as it is, without a job.

    Raises:
        Forbidden: 403 `quota_exceeded`, too many datasets.
        TooLarge: 413 `quota_exceeded`, too many bytes.
    """
    plain.check_size(new.purpose, new.stored.size, "file")
    quota.add_dataset(session, settings, project_id)
    quota.take(session, settings, project_id, new.stored.size)
    row = Dataset(
        id=new.id, project_id=project_id, created_ms=now_ms(session), name=new.name or new.filename,
        filename=new.filename, purpose=new.purpose, meta=new.metadata, columns=new.columns, modality=new.modality,
        bytes=new.stored.size, stored_bytes=new.stored.size, sha256=new.stored.sha256, key=new.stored.key,
        status=plain.KEPT if new.purpose in plain.SENT else "uploaded",
    )  # fmt: skip
    session.add(row)
    session.flush()
    if row.status == plain.KEPT:
        return row
    spec = IngestSpec(dataset=row.id, modality=row.modality, filename=row.filename, columns=row.columns)
    read = [jobs.InputRef("upload", row.id, row.sha256)]
    row.job_id = jobs.enqueue(session, project_id=project_id, spec=spec, inputs=read).id
    session.flush()
    return row


def of_project(project_id: str) -> Select[Dataset]:
    """The one place where datasets are scoped to their project (R25)."""
    return plain.of_project(project_id).where(Dataset.status != plain.KEPT)


def listed(project_id: str, status: Status | None, modality: str | None) -> Select[Dataset]:
    """The project's datasets, filtered."""
    query = of_project(project_id)
    if status is not None:
        query = query.where(Dataset.status == status)
    return query if modality is None else query.where(Dataset.modality == modality)


def get(session: Session, project_id: str, dataset_id: str) -> Dataset:
    """Raises NotFound."""
    row = session.scalar(of_project(project_id).where(Dataset.id == dataset_id)) if _ID.fullmatch(dataset_id) else None
    if row is None:
        raise NotFound("dataset", dataset_id)
    return row


def usable(session: Session, project_id: str, dataset_id: str) -> Dataset:
    """A ready dataset. Raises NotFound, and Conflict 409 `not_ready` or `dataset_invalid`."""
    row = get(session, project_id, dataset_id)
    _check_usable(row, "id", Conflict)
    return row


def folder_file(session: Session, project_id: str, dataset_id: str, path: str) -> StoredFile | None:
    """A file of a ready dataset's folder; None where ingest wrote no such file.

    Raises:
        NotFound: no such dataset.
        Conflict: 409 `not_ready` or `dataset_invalid`.
    """
    row = usable(session, project_id, dataset_id)
    found = session.get(DatasetFile, (row.id, path))
    return None if found is None else _stored(found)


def profile(session: Session, project_id: str, dataset_id: str) -> dict[str, Any]:
    """What ingest measured. Raises NotFound, and Conflict as `folder_file` does."""
    return usable(session, project_id, dataset_id).profile or {}


def facts(session: Session, project_id: str, dataset_id: str, param: str) -> DatasetFacts:
    """What a job that reads this dataset must know.

    The row stays share-locked until the caller's commit, so that a delete at the same moment sees the job.

    Raises:
        Unprocessable: `not_found` at `param`, missing and foreign alike; `dataset_invalid`; `dataset_empty`.
        Conflict: 409 `not_ready`.
    """
    query = of_project(project_id).where(Dataset.id == dataset_id).options(undefer(Dataset.profile))
    row = session.scalar(query.with_for_update(read=True)) if _ID.fullmatch(dataset_id) else None
    if row is None:
        raise Unprocessable("not_found", f"No dataset with id {dataset_id!r}.", param)
    _check_usable(row, param, Unprocessable)
    if not row.rows or row.modality is None:
        raise Unprocessable("dataset_empty", f"Dataset {row.id} has no rows to learn from.", param)
    return _facts(row, row.modality, row.rows)


def facts_of(session: Session, project_id: str, ids: Sequence[str]) -> dict[str, DatasetFacts]:
    """The same of those of these datasets that are here and ready, by id; nothing is locked."""
    query = of_project(project_id).where(Dataset.id.in_(ids)).options(undefer(Dataset.profile))
    rows = session.scalars(query) if ids else ()
    return {row.id: _facts(row, row.modality, row.rows) for row in rows if row.rows and row.modality is not None}


def _facts(row: Dataset, modality: str, rows: int) -> DatasetFacts:
    numbers = {name: row.profile[name] for name in _FACTS if row.profile and row.profile.get(name) is not None}
    return DatasetFacts(id=row.id, modality=modality, rows=rows, labelled=row.labelled or 0, **numbers)


def digest_and_files(session: Session, dataset_id: str) -> tuple[str, list[StoredFile]]:
    """Digest and canonical files, for a worker's ticket that is authorised already. Raises NotFound."""
    both = select(Dataset.digest, DatasetFile).join(DatasetFile, DatasetFile.dataset_id == Dataset.id)
    rows = session.execute(both.where(Dataset.id == dataset_id).order_by(DatasetFile.position)).all()
    if not rows or rows[0][0] is None:
        raise NotFound("dataset", dataset_id)
    return rows[0][0], [_stored(row) for _, row in rows]


def digest_of_dataset(session: Session, dataset_id: str) -> str:
    """The digest alone, for a job that is pinned to it. Raises NotFound."""
    row = session.get(Dataset, dataset_id)
    if row is None or row.digest is None:
        raise NotFound("dataset", dataset_id)
    return row.digest


def upload_file(session: Session, dataset_id: str) -> tuple[str, list[StoredFile]]:
    """Digest and the one file that an ingest job reads. Raises NotFound."""
    row = session.get(Dataset, dataset_id)
    if row is None:
        raise NotFound("dataset", dataset_id)
    return row.sha256, [StoredFile(path="upload", size=row.bytes, sha256=row.sha256, key=row.key)]


def begin_ingest(session: Session, dataset_id: str) -> None:
    """A worker holds the ingest job now. Again is a no-op, and so is a dataset that was deleted."""
    row = _locked(session, dataset_id)
    if row is not None and row.status == "uploaded":
        row.status = "ingesting"
        session.flush()


def finish_ingest(session: Session, dataset_id: str, files: Sequence[StoredFile], profile: dict[str, Any]) -> None:
    """`uploaded` or `ingesting` -> `ready`: the canonical files and the head numbers of the profile. Again is a no-op.

    Raises:
        Unprocessable: `invalid_profile`, the profile lacks its numbers.
    """
    row = _locked(session, dataset_id)
    if row is None or row.status in ("ready", "invalid"):
        return
    head = {name: profile.get(name) for name in ("modality", "rows", "labelled", "bad_rows")}
    if not isinstance(head["modality"], str) or not all(isinstance(head[name], int) for name in ("rows", "labelled")):
        raise Unprocessable("invalid_profile", "`summary` needs `modality`, `rows` and `labelled`.", "summary")
    session.add_all(
        DatasetFile(
            dataset_id=row.id, position=at, path=file["path"], size=file["size"], sha256=file["sha256"], key=file["key"]
        )
        for at, file in enumerate(files)
    )
    size = sum(file["size"] for file in files)
    row.status, row.profile, row.digest, row.finished_ms = "ready", profile, digest_of(files), now_ms(session)
    row.modality, row.rows, row.labelled = head["modality"], profile["rows"], profile["labelled"]
    row.bad_rows, row.stored_bytes = head["bad_rows"] or 0, row.bytes + size
    webhooks.publish(session, row.project_id, "dataset.ready", {"id": row.id})
    quota.charge(session, row.project_id, size)
    session.flush()


def fail_ingest(session: Session, dataset_id: str, error: dict[str, Any]) -> None:
    """`uploaded` or `ingesting` -> `invalid`, with the engine's words. Again is a no-op."""
    row = _locked(session, dataset_id)
    if row is None or row.status in ("ready", "invalid"):
        return
    row.status, row.finished_ms = "invalid", now_ms(session)
    row.error = {"code": error.get("code"), "message": error.get("message"), "param": error.get("param")}
    webhooks.publish(session, row.project_id, "dataset.invalid", {"id": row.id})
    session.flush()


def owned(session: Session, keys: Sequence[str]) -> set[str]:
    """Those of these objects of the store that a dataset or an open upload owns."""
    columns = (Dataset.key, DatasetFile.key, UploadPart.key)
    return {key for column in columns for key in session.scalars(select(column).where(column.in_(keys)))}


def digest_of(files: Sequence[StoredFile]) -> str:
    """The dataset's identity: sha256 over sorted lines `<path> <sha256>` of its row files (docs/contracts.md §3)."""
    lines = sorted(f"{file['path']} {file['sha256']}\n" for file in files if file["path"].startswith("rows-"))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def lock(session: Session, project_id: str, dataset_id: str) -> Dataset:
    """The row, of whatever purpose, locked against jobs that would start to use it. Raises NotFound."""
    plain.get(session, project_id, dataset_id)
    row = _locked(session, dataset_id)
    if row is None:
        raise NotFound("dataset", dataset_id)
    return row


def remove(session: Session, row: Dataset) -> list[str]:
    """Delete the rows; returns the store keys to delete once this is committed."""
    keys = [row.key, *(file["key"] for file in _files(session, row.id))]
    quota.drop_dataset(session, row.project_id, row.stored_bytes)
    session.execute(delete(DatasetFile).where(DatasetFile.dataset_id == row.id))
    session.delete(row)
    session.flush()
    return keys


def _check_usable(row: Dataset, param: str, refusal: type[Conflict] | type[Unprocessable]) -> None:
    if row.status == "invalid":
        why = (row.error or {}).get("message") or "it could not be ingested"
        raise refusal("dataset_invalid", f"Dataset {row.id} is invalid: {why}", param)
    if row.status != "ready":
        raise Conflict("not_ready", f"Dataset {row.id} is {row.status}; wait until its status is `ready`.", param)


def _locked(session: Session, dataset_id: str) -> Dataset | None:
    query = select(Dataset).where(Dataset.id == dataset_id).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def _files(session: Session, dataset_id: str) -> list[StoredFile]:
    query = select(DatasetFile).where(DatasetFile.dataset_id == dataset_id).order_by(DatasetFile.position)
    return [_stored(row) for row in session.scalars(query)]


def _stored(row: DatasetFile) -> StoredFile:
    return StoredFile(path=row.path, size=row.size, sha256=row.sha256, key=row.key)
