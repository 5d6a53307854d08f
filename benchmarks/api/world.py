"""What the rows are measured on: a database with many queued jobs of ten projects, an API and the floor over it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text

from app.auth.guard import Principal
from app.auth.service import ALL_SCOPES, create_project
from app.db import now_ms
from app.jobs.tables import Job
from app.migrate import migrate
from app.platform import Platform, session_scope
from app.settings import Settings
from benchmarks.api.server import SECRET_KEY, WORKER_TOKEN, Server, api, free_port, started
from tests.app.jobs_world import make_job, ready_dataset
from tests.services import Postgres

PROJECTS = 10
LARGE_SHARE = 0.9
"""Of the jobs, the oldest, belong to the first project; the others share the rest."""
_SHARED = """UPDATE jobs SET project_id = :project
WHERE id > :large AND id LIKE 'job_0000%' AND CAST(substr(id, 20) AS INTEGER) % :others = :number"""


@dataclass
class World:
    """Where to send requests, and as whom."""

    folder: Path
    database: str
    kind: str
    scale: float
    cores: tuple[int, int]
    """Of the server and of the generator; the database server runs beside the server."""
    postgres: Postgres | None
    platform: Platform
    keys: list[str] = field(default_factory=list)
    projects: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    """Of the first project, oldest first."""
    dataset: str = ""

    def seconds(self, full: float, least: float = 3.0) -> float:
        """A duration at this scale."""
        return max(least, full * self.scale)

    @contextmanager
    def api(self, **settings: str) -> Iterator[Server]:
        """A fresh API process over the database."""
        with api(self.folder, self.database, self.cores[0], settings) as server:
            server.database_pid = self._database_pid()
            yield server

    @contextmanager
    def floor(self) -> Iterator[Server]:
        """The bare FastAPI over the database."""
        port = free_port()
        command = ["-m", "benchmarks.api.floor", str(port)]
        more = {"FLOOR_DATABASE": self.database}
        with started(command, port, self.cores[0], more, self.folder / "floor.log") as server:
            server.database_pid = self._database_pid()
            yield server

    def _database_pid(self) -> int | None:
        return self.postgres.process.pid if self.postgres and self.postgres.process else None


@contextmanager
def world(kind: str, jobs: int, scale: float, cores: tuple[int, int]) -> Iterator[World]:
    """A database of its own, seeded, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="gwbench"))
    postgres = Postgres() if kind == "postgresql" else None
    try:
        url = postgres.create() if postgres else f"sqlite:///{folder / 'groundwork.db'}"
        given = {"worker_token": SecretStr(WORKER_TOKEN), "secret_key": SecretStr(SECRET_KEY)}
        settings = Settings(data_dir=folder, database_url=url, **given)
        migrate(settings)
        made = World(folder, url, kind, scale, cores, postgres, Platform.open(settings))
        seed(made, jobs)
        yield made
        made.platform.close()
    finally:
        if postgres:
            postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def seed(made: World, jobs: int) -> None:
    """Projects with a key each, one dataset, and queued jobs like those that the API writes."""
    root = Principal("", "", frozenset(ALL_SCOPES), root=True)
    with session_scope(made.platform) as session:
        for number in range(PROJECTS):
            project, _, key = create_project(session, made.platform.settings, root, f"project {number}")
            made.projects.append(project.id)
            made.keys.append(key)
    made.dataset = ready_dataset(made.platform, made.projects[0])
    with session_scope(made.platform) as session:
        pattern, at = make_job(session, made.projects[0], made.dataset).id, now_ms(session)
    with made.platform.engine.begin() as connection:
        connection.execute(text(_copies(made.kind)), {"pattern": pattern, "jobs": jobs, "at": at})
    large = f"job_{int(jobs * LARGE_SHARE):026d}"
    with made.platform.engine.begin() as connection:
        connection.execute(text(_SHARED), [
            {"project": project, "large": large, "others": len(made.projects) - 1, "number": number}
            for number, project in enumerate(made.projects[1:])
        ])  # fmt: skip
    made.jobs = [f"job_{number:026d}" for number in range(1, int(jobs * LARGE_SHARE) + 1)]
    with made.platform.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def _copies(kind: str) -> str:
    """An INSERT of so many copies of a job, numbered from 1, a millisecond apart, by the database itself."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :jobs)"
    padded = "lpad(CAST(i AS text), 26, '0')" if kind == "postgresql" else "printf('%026d', i)"
    changed = {"id": f"'job_' || {padded}", "rung_at": ":at", "available_at": ":at - :jobs + i"}
    changed["created_at"] = changed["available_at"]
    names = [column.name for column in Job.__table__.columns]
    values = ", ".join(changed.get(name, f"jobs.{name}") for name in names)
    chosen = f"SELECT {values} FROM jobs, n WHERE jobs.id = :pattern"
    if kind == "postgresql":
        return f"{numbers} INSERT INTO jobs ({', '.join(names)}) {chosen}"
    return f"INSERT INTO jobs ({', '.join(names)}) {numbers} {chosen}"
