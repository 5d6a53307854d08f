"""The floor: a bare FastAPI on uvicorn over the same tables, with raw SQL and no keys, validation or events.

    FLOOR_DATABASE=<SQLAlchemy URL> python -m benchmarks.api.floor PORT
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
from typing import Any

import psycopg
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

COLUMNS = "id, type, status, queue, spec, meta, progress, result, error, created_at, started_at, finished_at"


class Points(BaseModel):
    """One batch of a curve."""

    job: str
    steps: list[int]
    values: list[float]


class Database:
    """One connection for each thread, in autocommit."""

    def __init__(self, url: str) -> None:
        self._url, self._local = url, threading.local()
        self.mark = "?" if url.startswith("sqlite") else "%s"

    def get(self) -> Any:
        """This thread's connection."""
        found = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = self._connect()
        return found

    def _connect(self) -> Any:
        if self.mark == "?":
            connection = sqlite3.connect(self._url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            return connection
        name, _, host = self._url.partition("@/")[2].partition("?host=")
        return psycopg.connect(f"host={host} user=postgres dbname={name}", autocommit=True)


def make_app(database: Database) -> FastAPI:
    """The routes."""
    app, mark = FastAPI(), database.mark

    @app.get("/ping")
    async def ping() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/jobs/{job_id}")
    def job(job_id: str) -> Any:
        row = database.get().execute(f"SELECT {COLUMNS} FROM jobs WHERE id = {mark}", (job_id,)).fetchone()
        return _shown(row)

    @app.get("/jobs")
    def jobs(project: str) -> Any:
        query = f"SELECT {COLUMNS} FROM jobs WHERE project_id = {mark} ORDER BY id DESC LIMIT 50"
        return {"data": [_shown(row) for row in database.get().execute(query, (project,)).fetchall()]}

    @app.post("/points")
    def points(body: Points) -> dict[str, int]:
        rows = [(body.job, "loss", step, value) for step, value in zip(body.steps, body.values, strict=True)]
        marks = ", ".join([mark] * 4)
        connection = database.get()
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.executemany(f"INSERT INTO floor_points VALUES ({marks})", rows)
        cursor.execute("COMMIT")
        return {"accepted": len(rows)}

    return app


def _shown(row: Any) -> dict[str, Any]:
    found = dict(zip(COLUMNS.split(", "), row, strict=True))
    for name in ("spec", "meta"):
        found[name] = json.loads(found[name]) if isinstance(found[name], str) else found[name]
    return found


def main() -> None:
    """See the top of the file."""
    database = Database(os.environ["FLOOR_DATABASE"])
    table = "job_id TEXT, series TEXT, step BIGINT, value DOUBLE PRECISION"
    database.get().execute(f"CREATE TABLE IF NOT EXISTS floor_points ({table})")
    uvicorn.run(make_app(database), port=int(sys.argv[1]), log_level="error", access_log=False, loop="uvloop")


if __name__ == "__main__":
    main()
