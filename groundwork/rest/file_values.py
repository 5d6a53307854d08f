"""What the server tells of uploads, searches and batches."""

from __future__ import annotations

from groundwork.rest.values import Json, Rows, Thing


class Upload(Thing):
    """A file that arrives in parts. `parts` are the durable ones; empty right after it began."""

    id: str
    bytes: int
    filename: str
    status: str
    received_bytes: int
    expires_at: int
    shown = ("id", "filename", "status", "received_bytes")

    @property
    def parts(self) -> Rows:
        """Each with `id`, `bytes` and `sha256`."""
        return self.raw.get("parts") or []


class Hit(Thing):
    """A row that a search found; `row` counts from 0, `score` is the cosine, `preview` shows what is in it."""

    row: int
    source: str | None
    label: str | None
    score: float
    preview: Json | None
    shown = ("row", "score", "label")


class Hits(Thing):
    """What a search found, nearest first. `model` and `job` made the vectors; `index` says how they were looked at."""

    model: str
    job: str
    index: Json
    shown = ("model", "job")

    @property
    def rows(self) -> list[Hit]:
        """The rows."""
        return [Hit(each) for each in self.raw["data"]]


class BatchFields(Thing):
    """A file of requests and its answers. `status`: validating, in_progress, finalizing, completed, failed, ..."""

    id: str
    endpoint: str
    model: str | None
    status: str
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    request_counts: Json
    usage: Json | None
    metadata: dict[str, str] | None
    shown = ("id", "endpoint", "status")

    @property
    def errors(self) -> Rows:
        """What is wrong with the file of a failed batch, each with `line`, `code` and `message`."""
        return (self.raw.get("errors") or {}).get("data") or []

    @property
    def ended(self) -> bool:
        """Whether its status is one that stays."""
        return self.status in ("completed", "failed", "expired", "cancelled")
