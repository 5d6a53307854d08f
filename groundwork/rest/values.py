"""What the server tells, as objects: typed attributes over the JSON, which stays there as it came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypedDict

Json = dict[str, Any]
Rows = list[Json]
Vectors = list[list[float]]
ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Thing:
    """An object of the server. Its annotations are its attributes; `raw`, or `thing["field"]`, is the whole JSON.

    A field that an older server leaves out is None; one that a newer server adds is in `raw` and under its name.
    """

    raw: Json
    shown: ClassVar[tuple[str, ...]] = ("id", "status")

    def __init__(self, raw: Json) -> None:
        self.__dict__["raw"] = raw

    def __getitem__(self, name: str) -> Any:
        return self.raw[name]

    def __contains__(self, name: object) -> bool:
        return name in self.raw

    def get(self, name: str, default: Any = None) -> Any:
        """A field of the JSON, or the default."""
        return self.raw.get(name, default)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: objects show what the server said")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and type(other) is type(self) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash((type(self), self.raw.get("id")))

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={self.raw[name]!r}" for name in self.shown if name in self.raw)
        return f"{type(self).__name__}({told})"

    if not TYPE_CHECKING:  # a checker sees the annotations, and finds names that are none of them

        def __getattr__(self, name: str) -> Any:
            raw = self.__dict__.get("raw", {})
            if name in raw:
                return raw[name]
            if any(name in vars(kind).get("__annotations__", {}) for kind in type(self).__mro__):
                return None
            raise AttributeError(f"{type(self).__name__} has no field {name!r}; it has: {', '.join(sorted(raw))}")


class Fault(Thing):
    """Why a job failed or a dataset is invalid; `param` is the field or `file:row` at fault."""

    code: str | None
    message: str
    param: str | None
    shown = ("code", "message", "param")


class BadRow(Thing):
    """A row that was left out, or that made a dataset invalid."""

    file: str | None
    row: int | None
    code: str
    message: str
    shown = ("file", "row", "code", "message")


class DatasetFields(Thing):
    """An uploaded file, and what ingest made of it. `status`: uploaded, ingesting, ready or invalid."""

    id: str
    created_at: int
    name: str
    filename: str
    purpose: str
    bytes: int
    sha256: str
    status: str
    modality: str | None
    columns: dict[str, str]
    metadata: dict[str, str]
    rows: int | None
    labelled: int | None
    bad_rows: int | None
    digest: str | None
    job: str | None
    finished_at: int | None
    shown = ("id", "name", "status", "rows")

    @property
    def error(self) -> Fault | None:
        """Why it is invalid."""
        return _fault(self.raw)


class Progress(Thing):
    """How far a run is."""

    stage: str | None
    step: int
    total_steps: int | None
    percent: float
    examples_per_second: float | None
    eta_seconds: float | None
    shown = ("stage", "step", "total_steps", "percent")


class Attempt(Thing):
    """One start of a job, and why it ended; times are unix seconds."""

    attempt: int
    worker: str
    started_at: int
    ended_at: int | None
    outcome: str | None
    reason: str | None
    shown = ("attempt", "outcome", "reason")


class JobFields(Thing):
    """A job. `spec` is as sent, `resolved_spec` holds every number; times are unix seconds."""

    id: str
    created_at: int
    started_at: int | None
    finished_at: int | None
    type: str
    status: str
    spec: Json
    resolved_spec: Json
    result: Json | None
    metadata: dict[str, str]
    shown = ("id", "type", "status")

    @property
    def error(self) -> Fault | None:
        """Why it failed."""
        return _fault(self.raw)

    @property
    def progress(self) -> Progress | None:
        """How far it is; None until it has begun."""
        found = self.raw.get("progress")
        return Progress(found) if found else None

    @property
    def attempts(self) -> list[Attempt]:
        """How often it was started; empty in lists."""
        return [Attempt(each) for each in self.raw.get("attempts") or []]

    @property
    def ended(self) -> bool:
        """Whether its status is one that stays."""
        return self.status in ENDED

    @property
    def model_id(self) -> str | None:
        """The model that it made."""
        return (self.result or {}).get("model")

    @property
    def final_metrics(self) -> Json:
        """What the result says of it, by series."""
        return (self.result or {}).get("metrics") or {}


class ModelFields(Thing):
    """A trained model. `kind`: encoder or task; `lineage`: job, dataset digests, base model, seed, spec."""

    id: str
    created_at: int
    owned_by: str
    name: str
    kind: str
    modality: str
    backbone: str
    objective: str | None
    task: str | None
    classes: list[str]
    embedding_dimensions: int
    parameters: int
    max_length: int | None
    bytes: int
    digest: str
    metrics: Json
    metadata: dict[str, str]
    lineage: Json
    card: Json | None
    shown = ("id", "name", "kind")


class Event(Thing):
    """A line of a job's diary: a change of state, a message, a checkpoint or a sample."""

    id: str
    created_at: int
    type: str
    level: str
    code: str
    message: str
    data: Json
    shown = ("id", "type", "code", "message")


class LiveEvent(Thing):
    """One thing that a live stream told. `name`: `job.event`, `progress` or `done`, with which a stream ends."""

    name: str
    status: str | None
    shown = ("name", "status")

    @property
    def event(self) -> Event | None:
        """The diary's line, of a `job.event`."""
        return Event(self.raw["data"]) if self.name == "job.event" else None

    @property
    def progress(self) -> Progress | None:
        """How far the run is, of a `progress`."""
        return Progress(self.raw["data"]["progress"]) if self.name == "progress" else None

    @property
    def metrics(self) -> Json:
        """The newest value of each series, of a `progress`."""
        found: Json = self.raw["data"].get("metrics") or {} if self.name == "progress" else {}
        return found


class Checkpoint(Thing):
    """A checkpoint that a job can resume from."""

    id: str
    created_at: int
    step: int
    attempt: int
    bytes: int
    metrics: Json
    shown = ("id", "step")


class Sample(Thing):
    """A picture or a text that a run made to be looked at."""

    id: str
    created_at: int
    step: int
    name: str
    media_type: str
    caption: str
    shown = ("id", "step", "name")


class File(Thing):
    """A file of a model or of a job's result; `path` is relative, `sha256` hexadecimal."""

    path: str
    bytes: int
    sha256: str
    shown = ("path", "bytes")


class Series(NamedTuple):
    """A curve: `values[i]` was measured at `steps[i]`."""

    steps: list[int]
    values: list[float]

    @classmethod
    def of(cls, raw: Json) -> Series:
        """From the server's shape, in which a value that is not finite is a string."""
        return cls(raw["steps"], [float(value) for value in raw["values"]])


class NewDataset(TypedDict, total=False):
    """What may be said of an upload; `columns` says which column of yours is what (`{"text": "body"}`)."""

    name: str
    modality: str
    columns: dict[str, str]
    metadata: dict[str, str]


def _fault(raw: Json) -> Fault | None:
    found = raw.get("error")
    return Fault(found) if found else None
