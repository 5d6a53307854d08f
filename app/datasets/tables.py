"""Rows of the datasets domain. Times are unix milliseconds of the database's clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Dataset(Base):
    """One uploaded file and what ingest made of it. The uploaded bytes never change."""

    __tablename__ = "datasets"
    __table_args__ = (Index("ix_datasets_project_id_id", "project_id", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(255))
    filename: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(16))
    meta: Mapped[dict[str, str]] = mapped_column("metadata", JSON, default=dict)
    columns: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(500))
    """Where the uploaded file lies."""
    job_id: Mapped[str | None] = mapped_column(String(40), default=None)
    """The ingest job."""

    status: Mapped[str] = mapped_column(String(16), default="uploaded")
    modality: Mapped[str | None] = mapped_column(String(32), default=None)
    """As declared, then as found."""
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    finished_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)
    digest: Mapped[str | None] = mapped_column(String(64), default=None)
    rows: Mapped[int | None] = mapped_column(BigInteger, default=None)
    labelled: Mapped[int | None] = mapped_column(BigInteger, default=None)
    bad_rows: Mapped[int | None] = mapped_column(BigInteger, default=None)
    stored_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """What it costs of the project's storage: the upload and the canonical files."""
    profile: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None, deferred=True)
    """The numbers of `profile.json` that jobs are planned with; large, so only read where asked for."""


class DatasetFile(Base):
    """One file of a canonical dataset folder (docs/contracts.md §3), and where its bytes live."""

    __tablename__ = "dataset_files"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(String(255), primary_key=True)
    position: Mapped[int] = mapped_column(Integer)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(700))


class Upload(Base):
    """A file that arrives in parts. `pending` until it is completed, cancelled, or past its time."""

    __tablename__ = "uploads"
    __table_args__ = (
        Index("ix_uploads_project_id_id", "project_id", "id"),
        Index("ix_uploads_open", "status", "expires_ms"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(16), default="pending")
    filename: Mapped[str] = mapped_column(String(255))
    bytes: Mapped[int] = mapped_column(BigInteger)
    mime_type: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str | None] = mapped_column(String(64), default=None)
    """As declared; None where the client did not say."""
    about: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Name, modality, columns and metadata of the dataset to be."""
    dataset_id: Mapped[str | None] = mapped_column(String(40), default=None)
    part_ids: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True), default=None)
    """The order it was completed in: the same request again gets the same reply."""


class UploadPart(Base):
    """A durable piece of an upload. The same bytes sent twice are one part."""

    __tablename__ = "upload_parts"
    __table_args__ = (UniqueConstraint("upload_id", "sha256", "size"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(500))


class StorageAccount(Base):
    """What a project holds; its row is the lock under which room is given out, so racers cannot overshoot (R18)."""

    __tablename__ = "storage_accounts"

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    used_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    datasets: Mapped[int] = mapped_column(BigInteger, default=0)


class StorageHold(Base):
    """Room promised to a request whose bytes are still arriving; one left by a dead process lapses by itself."""

    __tablename__ = "storage_holds"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int] = mapped_column(BigInteger)
