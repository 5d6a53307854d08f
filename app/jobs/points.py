"""Metric points: one per (job, series, step) however often sent, read as series, thinned on request."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Float, Integer, String, bindparam, cast, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db import after_commit
from app.errors import Unprocessable
from app.jobs.tables import Job, Point, Series

MAX_SERIES = 1000
MAX_POINTS = 20_000_000
Row = tuple[str, int, float | None, str | None]

_MOST_JOBS = 10_000
_named: dict[str, frozenset[str]] = {}
"""Series that are in the database for certain, by job: a run sends the same names in every batch."""


class Reading(NamedTuple):
    """One value; a value that JSON cannot hold is `None` here and named in `special` (B34)."""

    series: str
    step: int
    value: float | None
    special: str | None

    @property
    def shown(self) -> float | str:
        """As the wire carries it."""
        return self.special or (0.0 if self.value is None else self.value)

    @classmethod
    def of(cls, series: str, step: int, value: float | str) -> Reading:
        """From the wire: a finite number, or one of `nan`, `inf`, `-inf`."""
        return cls(series, step, None, value) if isinstance(value, str) else cls(series, step, float(value), None)


def write(session: Session, job: Job, readings: Sequence[Reading]) -> None:
    """Upsert by fence: the same attempt or a newer one replaces, an older one never does (R8).

    Raises:
        Unprocessable: `too_many_series` or `too_many_points` for this job (R18).
    """
    names = frozenset(reading.series for reading in readings)
    if not names <= _named.get(job.id, frozenset()):
        _name_series(session, job, names)
    if job.points + len(readings) > MAX_POINTS:
        raise Unprocessable("too_many_points", f"A job may have {MAX_POINTS} metric points.", "events")
    rows = [(reading.series, reading.step, reading.value, reading.special) for reading in readings]
    write_rows = _write_one_by_one if session.get_bind().dialect.name == "sqlite" else _write_at_once
    write_rows(session, job, rows)


def _name_series(session: Session, job: Job, names: frozenset[str]) -> None:
    series = _insert(session)(Series).on_conflict_do_nothing(index_elements=["job_id", "name"])
    session.execute(series, [{"job_id": job.id, "name": name} for name in sorted(names)])
    known = session.execute(select(func.count()).where(Series.job_id == job.id)).scalar_one()
    if known > MAX_SERIES:
        raise Unprocessable("too_many_series", f"A job may have {MAX_SERIES} metric series, not {known}.", "events")

    def remember() -> None:
        if len(_named) >= _MOST_JOBS:
            _named.clear()
        _named[job.id] = _named.get(job.id, frozenset()) | names

    after_commit(session, remember)


def _write_one_by_one(session: Session, job: Job, rows: Sequence[Row]) -> None:
    statement = _newer(sqlite.insert(Point))
    fields = ("series", "step", "value", "special")
    known = {"job_id": job.id, "fence": job.fence}
    session.execute(statement, [known | dict(zip(fields, row, strict=True)) for row in rows])


def _write_at_once(session: Session, job: Job, rows: Sequence[Row]) -> None:
    """One statement over arrays: a statement for each point costs the server and us five times as much.

    Arrays go as PostgreSQL's own text, which the driver takes as it is: it would look at every element.
    """
    series, steps, values, specials = zip(*{row[:2]: row for row in rows}.values(), strict=True)
    quoted = {name: json.dumps(name, ensure_ascii=False) for name in set(series)}
    arrays = {
        "series": _literal(quoted[name] for name in series), "step": _literal(map(str, steps)),
        "value": _literal("NULL" if value is None else repr(value) for value in values),
        "special": _literal(special or "NULL" for special in specials),
    }  # fmt: skip
    session.connection().execute(_AT_ONCE, {"job_id": job.id, "fence": job.fence, **arrays})


def _literal(elements: Iterable[str]) -> str:
    return f"{{{','.join(elements)}}}"


def _newer(statement: Any) -> Any:
    """The same attempt's value or a newer one's replaces what is there."""
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["job_id", "series", "step"],
        set_={"value": new.value, "special": new.special, "fence": new.fence},
        where=new.fence >= Point.fence,
    )


def _array(name: str, of: Any) -> Any:
    return cast(bindparam(name, type_=String), postgresql.ARRAY(of))


_GIVEN = func.unnest(
    _array("series", String), _array("step", BigInteger), _array("value", Float(53)), _array("special", String)
).table_valued("series", "step", "value", "special", name="given").render_derived()
_AT_ONCE = _newer(
    postgresql.insert(Point).from_select(
        ["job_id", "series", "step", "value", "special", "fence"],
        select(
            cast(bindparam("job_id"), String), _GIVEN.c.series, _GIVEN.c.step, _GIVEN.c.value, _GIVEN.c.special,
            cast(bindparam("fence"), Integer),
        ),
    )
)  # fmt: skip


def supersede(session: Session, job: Job, step: int) -> None:
    """Drop points beyond `step` that older attempts left: the curve goes on from where the run resumed (R9)."""
    session.execute(
        delete(Point).where(Point.job_id == job.id, Point.step > step, Point.fence < job.fence),
        execution_options={"synchronize_session": False},
    )


def read(session: Session, job_id: str, names: Sequence[str] | None, points: int | None) -> dict[str, list[Reading]]:
    """Series by name, each ordered by step; `points` thins each to about that many, first and last kept."""
    query = select(Point.series, Point.step, Point.value, Point.special).where(Point.job_id == job_id)
    if names:
        query = query.where(Point.series.in_(names))
    found: dict[str, list[Reading]] = {name: [] for name in names or series_names(session, job_id)}
    for row in session.execute(query.order_by(Point.series, Point.step)):
        found.setdefault(row.series, []).append(Reading(*row))
    return {name: _thin(series, points) for name, series in found.items()}


def series_names(session: Session, job_id: str) -> list[str]:
    """In alphabetical order."""
    return list(session.scalars(select(Series.name).where(Series.job_id == job_id).order_by(Series.name)))


def latest(session: Session, job_id: str, step: int) -> dict[str, float | str | None]:
    """Values at exactly this step, for a live stream."""
    rows = session.execute(
        select(Point.series, Point.value, Point.special).where(Point.job_id == job_id, Point.step == step)
    )
    return {row.series: row.special or row.value for row in rows}


def as_csv(series: dict[str, list[Reading]]) -> str:
    """`series,step,value` with a header; not-a-number and infinities by name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["series", "step", "value"])
    writer.writerows(_rows(series.values()))
    return text.getvalue()


def _rows(series: Iterable[list[Reading]]) -> Iterable[tuple[str, int, Any]]:
    for readings in series:
        for reading in readings:
            yield reading.series, reading.step, reading.special or reading.value


def _thin(readings: list[Reading], points: int | None) -> list[Reading]:
    if points is None or len(readings) <= points:
        return readings
    if points == 1:
        return readings[-1:]
    last = len(readings) - 1
    return [readings[round(index * last / (points - 1))] for index in range(points)]


def _insert(session: Session) -> Any:
    return sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
