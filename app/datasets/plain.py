"""Files that are kept as they came and are no datasets: requests of a batch, and what a batch has answered.

They are rows of the same table, with status `kept`: counted, listed, downloaded and deleted as every file is, but never
ingested, and nothing that a job could learn from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.datasets import quota
from app.datasets.tables import Dataset
from app.db import now_ms
from app.errors import NotFound, TooLarge, Unprocessable
from app.ids import new_id
from ssl_core.requests.lines import MAX_BYTES

KEPT = "kept"
SENT = ("batch",)
"""Purposes of uploads that are not ingested."""
Made = Literal["batch_output"]
Listed = Literal["fine-tune", "pretrain", "batch", "batch_output"]
_ID = re.compile(r"ds_[0-9a-z]{1,37}")


class Output(NamedTuple):
    """A file that a job has made and the store holds: its name, and where and what it is."""

    filename: str
    key: str
    size: int
    sha256: str


def of_project(project_id: str) -> Select[Dataset]:
    """The files of a project, datasets too (R25)."""
    return select(Dataset).where(Dataset.project_id == project_id)


def of_purpose(project_id: str, purpose: Listed | None) -> Select[Dataset]:
    """As the files door lists them."""
    query = of_project(project_id)
    return query if purpose is None else query.where(Dataset.purpose == purpose)


def get(session: Session, project_id: str, file_id: str) -> Dataset:
    """A file of any purpose. Raises NotFound."""
    row = session.scalar(of_project(project_id).where(Dataset.id == file_id)) if _ID.fullmatch(file_id) else None
    if row is None:
        raise NotFound("file", file_id)
    return row


def of_requests(session: Session, project_id: str, file_id: str, param: str) -> Dataset:
    """A file that a batch can read. It stays share-locked until the caller's commit, so that a delete sees the job.

    Raises:
        Unprocessable: `not_found` at `param`, missing and foreign alike; `wrong_purpose`.
    """
    row = session.scalar(of_project(project_id).where(Dataset.id == file_id).with_for_update(read=True))
    if row is None:
        raise Unprocessable("not_found", f"No file with id {file_id!r}.", param)
    if row.purpose not in SENT:
        words = f"File {file_id} has the purpose {row.purpose}; upload the requests with the purpose batch."
        raise Unprocessable("wrong_purpose", words, param)
    return row


def check_size(purpose: str, size: int, param: str) -> None:
    """Raises TooLarge 413 `too_large` for a file of requests over the limit."""
    if purpose in SENT and size > MAX_BYTES:
        words = f"A file of purpose {purpose} may have at most {MAX_BYTES} bytes; send several."
        raise TooLarge("too_large", words, param)


def keep(session: Session, project_id: str, purpose: Made, outputs: Sequence[Output]) -> list[str]:
    """Files of the project, of bytes that are there already; returns their ids in order."""
    rows = [
        Dataset(
            id=new_id("ds"), project_id=project_id, created_ms=now_ms(session), name=each.filename,
            filename=each.filename, purpose=purpose, bytes=each.size, stored_bytes=each.size, sha256=each.sha256,
            key=each.key, status=KEPT,
        )
        for each in outputs
    ]  # fmt: skip
    for row in rows:
        session.add(row)
        quota.charge_file(session, project_id, row.bytes)
    session.flush()
    return [row.id for row in rows]
