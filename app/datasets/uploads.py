"""The rules of uploads in parts (R16): a part is durable before anybody hears of it, and completing happens once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from app.datasets import plain, quota, service
from app.datasets.file_schemas import UploadComplete, UploadCreate
from app.datasets.tables import Dataset, Upload, UploadPart
from app.db import after_commit, now_ms
from app.errors import ApiError, Conflict, NotFound, TooLarge, Unprocessable
from app.ids import new_id
from app.settings import Settings
from app.storage import Store, Stored

MAX_PARTS = 10_000
SWEPT_AT_ONCE = 100


class Gone(ApiError):
    """It was there and has expired."""

    status = 410


@dataclass(frozen=True)
class Assembly:
    """What completing an upload has to join, in order, and what it must come to."""

    upload: Upload
    keys: list[str]
    md5: str | None
    sha256: list[str]


def folder(upload_id: str) -> str:
    """Below it lie the parts."""
    return f"uploads/{upload_id}"


def part_key(upload_id: str, part_id: str) -> str:
    """Where a part lies."""
    return f"{folder(upload_id)}/{part_id}"


def create(session: Session, settings: Settings, project_id: str, body: UploadCreate) -> Upload:
    """Promise room for the whole file.

    Raises:
        TooLarge: 413 `too_large` or `quota_exceeded`.
        Unprocessable: 422 `empty`.
    """
    if body.bytes == 0:
        raise Unprocessable("empty", "The file is empty; `bytes` must be at least 1.", "bytes")
    if body.bytes > settings.max_upload_bytes:
        raise TooLarge("too_large", f"The file is larger than the {settings.max_upload_bytes} bytes allowed.", "bytes")
    plain.check_size(body.purpose, body.bytes, "bytes")
    quota.take(session, settings, project_id, body.bytes)
    now = now_ms(session)
    row = Upload(
        id=new_id("upl"), project_id=project_id, created_ms=now, expires_ms=now + int(settings.upload_seconds * 1000),
        filename=service.clean_filename(body.filename), bytes=body.bytes, mime_type=body.mime_type,
        purpose=body.purpose, sha256=body.sha256, status="pending",
        about=body.model_dump(include={"name", "modality", "columns", "metadata"}),
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def of_project(project_id: str) -> Select[Upload]:
    """The one place where uploads are scoped to their project (R25)."""
    return select(Upload).where(Upload.project_id == project_id)


def get(session: Session, project_id: str, upload_id: str, lock: bool = False) -> Upload:
    """The row, shown as expired once its time has passed. Raises NotFound."""
    query = of_project(project_id).where(Upload.id == upload_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    row = session.scalar(query) if upload_id.isascii() and upload_id.isprintable() else None
    if row is None:
        raise NotFound("upload", upload_id)
    return row


def status(session: Session, row: Upload) -> str:
    """`expired` as soon as its time has passed, whether or not the sweep came by."""
    late = row.status == "pending" and row.expires_ms <= now_ms(session)
    return "expired" if late else row.status


def parts(session: Session, upload_id: str) -> list[UploadPart]:
    """The durable parts, oldest first."""
    return list(session.scalars(select(UploadPart).where(UploadPart.upload_id == upload_id).order_by(UploadPart.id)))


def file_of(session: Session, row: Upload) -> Dataset | None:
    """What became of it; None before it is completed, and once the dataset is deleted."""
    return session.get(Dataset, row.dataset_id) if row.dataset_id else None


def check_open(session: Session, row: Upload) -> None:
    """Raises Gone 410 `upload_expired`, or Conflict 409 `invalid_state`."""
    now = status(session, row)
    if now == "expired":
        raise Gone("upload_expired", "This upload has expired; begin a new one.", "id")
    if now != "pending":
        raise Conflict("invalid_state", f"This upload is {now}; only a pending one can be written to.", "id")


def check_part(session: Session, project_id: str, upload_id: str) -> int:
    """Before a part's bytes are read: may it come? Returns how many bytes it may have at most.

    Raises:
        NotFound, Gone, Conflict: no such upload, or not open.
        Unprocessable: 422 `too_many_parts`.
    """
    row = get(session, project_id, upload_id)
    check_open(session, row)
    if received(session, upload_id)[0] >= MAX_PARTS:
        raise Unprocessable(
            "too_many_parts", f"An upload may have at most {MAX_PARTS} parts; send larger ones.", "data"
        )
    return row.bytes


def received(session: Session, upload_id: str) -> tuple[int, int]:
    """How many parts are durable, and how many bytes they have."""
    query = select(func.count(), func.coalesce(func.sum(UploadPart.size), 0)).where(UploadPart.upload_id == upload_id)
    count, size = session.execute(query).one()
    return int(count), int(size)


def add_part(session: Session, store: Store, project_id: str, upload_id: str, stored: Stored) -> UploadPart:
    """Record a part whose bytes lie in the store. The same bytes again are the part that is there already.

    Raises:
        TooLarge: 413 `too_large`, beyond the declared bytes.
        NotFound, Gone, Conflict, Unprocessable: as `check_part`.
    """
    row = get(session, project_id, upload_id, lock=True)
    check_open(session, row)
    same = (UploadPart.upload_id == row.id, UploadPart.sha256 == stored.sha256, UploadPart.size == stored.size)
    known = session.scalar(select(UploadPart).where(*same))
    if known is not None:
        after_commit(session, lambda: store.delete(stored.key))
        return known
    check_part(session, project_id, upload_id)
    left = row.bytes - received(session, row.id)[1]
    if stored.size > left:
        raise TooLarge(
            "too_large", f"The part has {stored.size} bytes; {left} of the declared {row.bytes} are left.", "data"
        )
    part_id = stored.key.rsplit("/", 1)[-1]
    part = UploadPart(
        id=part_id, upload_id=row.id, created_ms=now_ms(session), size=stored.size, sha256=stored.sha256, key=stored.key
    )
    session.add(part)
    session.flush()
    return part


def plan(session: Session, project_id: str, upload_id: str, body: UploadComplete) -> Assembly | Upload:
    """What to join; the upload itself where the same request has been carried out before.

    Raises:
        NotFound: no such upload, or a part that is not one of its parts (`part_ids.3`).
        ApiError: 400 `parts_missing`, they do not come to the declared bytes.
        Gone, Conflict: not open.
    """
    row = get(session, project_id, upload_id)
    if row.status == "completed" and row.part_ids == body.part_ids:
        return row
    check_open(session, row)
    known = {part.id: part for part in parts(session, row.id)}
    for at, part_id in enumerate(body.part_ids):
        if part_id not in known:
            raise NotFound("part", part_id, f"part_ids.{at}")
    total = sum(known[part_id].size for part_id in body.part_ids)
    if total != row.bytes:
        raise ApiError("parts_missing", f"The parts come to {total} bytes; {row.bytes} were declared.", "part_ids")
    wanted = [digest for digest in (row.sha256, body.sha256) if digest is not None]
    return Assembly(row, [known[part_id].key for part_id in body.part_ids], body.md5, wanted)


def finish(
    session: Session, settings: Settings, store: Store, body: UploadComplete, made: service.NewDataset, planned: Upload
) -> Upload:
    """Turn the upload into its dataset, once: whoever comes second gets what the first one made.

    Raises:
        Gone, Conflict: it was cancelled, or ran out of time, or was completed otherwise while its parts were joined.
    """
    row = get(session, planned.project_id, planned.id, lock=True)
    if row.status == "completed" and row.part_ids == body.part_ids:
        after_commit(session, lambda: store.delete(made.stored.key))
        return row
    check_open(session, row)
    quota.charge(session, row.project_id, -row.bytes)
    service.create(session, settings, row.project_id, made)
    row.status, row.dataset_id, row.part_ids = "completed", made.id, body.part_ids
    _drop_parts(session, store, [row])
    return row


def cancel(session: Session, store: Store, project_id: str, upload_id: str) -> Upload:
    """Give it up and free its bytes; again is a no-op. Raises NotFound, Gone, Conflict 409 for a completed one."""
    row = get(session, project_id, upload_id, lock=True)
    if row.status == "cancelled":
        return row
    check_open(session, row)
    row.status = "cancelled"
    quota.charge(session, row.project_id, -row.bytes)
    _drop_parts(session, store, [row])
    return row


def overdue(session: Session) -> bool:
    """Whether `sweep` would find something."""
    late = select(Upload.id).where(Upload.status == "pending", Upload.expires_ms <= now_ms(session))
    return session.scalar(late.limit(1)) is not None or quota.any_lapsed(session)


def sweep(session: Session, store: Store) -> int:
    """Free what expired uploads hold, at most SWEPT_AT_ONCE of them, and lapsed holds; returns how many uploads."""
    late = (Upload.status == "pending", Upload.expires_ms <= now_ms(session))
    query = select(Upload).where(*late).order_by(Upload.id).limit(SWEPT_AT_ONCE).with_for_update(skip_locked=True)
    rows = list(session.scalars(query))
    for row in rows:
        row.status = "expired"
        quota.charge(session, row.project_id, -row.bytes)
    _drop_parts(session, store, rows)
    quota.sweep_holds(session)
    return len(rows)


def _drop_parts(session: Session, store: Store, rows: Sequence[Upload]) -> None:
    ids = [row.id for row in rows]
    session.execute(delete(UploadPart).where(UploadPart.upload_id.in_(ids)))
    session.flush()
    after_commit(session, lambda: [store.delete(folder(each)) for each in ids])
