"""Transactions: nothing lost, nothing half done, reads out of the way of writes, many requests at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import select

from app.auth.tables import Project
from app.db import after_commit, now_ms
from app.platform import Platform, read_scope, session_scope
from tests.app.conftest import LiveApi, environment, make_settings


def add(platform: Platform, id: str, name: str = "0") -> None:
    with session_scope(platform) as session:
        session.add(Project(id=id, name=name, created_ms=now_ms(session)))


def test_no_update_is_lost_between_threads(everywhere: Platform) -> None:
    add(everywhere, "proj_1")

    def count() -> None:
        for _ in range(20):
            with session_scope(everywhere) as session:
                row = session.scalars(select(Project).where(Project.id == "proj_1").with_for_update()).one()
                row.name = str(int(row.name) + 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with read_scope(everywhere) as session:
        row = session.get(Project, "proj_1")
        assert row is not None and row.name == "80"


def test_an_exception_undoes_the_whole_transaction_and_rings_nothing(everywhere: Platform) -> None:
    rung: list[int] = []
    with pytest.raises(RuntimeError, match="halfway"), session_scope(everywhere) as session:
        session.add(Project(id="proj_1", name="a", created_ms=1))
        session.flush()
        after_commit(session, lambda: rung.append(1))
        raise RuntimeError("halfway")
    with read_scope(everywhere) as session:
        assert session.get(Project, "proj_1") is None and rung == []


def test_the_ring_comes_after_the_commit_is_visible_to_others(everywhere: Platform) -> None:
    seen: list[bool] = []

    def ring() -> None:
        with read_scope(everywhere) as other:
            seen.append(other.get(Project, "proj_1") is not None)

    with session_scope(everywhere) as session:
        session.add(Project(id="proj_1", name="a", created_ms=1))
        after_commit(session, ring)
        assert seen == []
    assert seen == [True]


def test_a_read_does_not_wait_for_a_writer(everywhere: Platform) -> None:
    add(everywhere, "proj_1", "before")
    with session_scope(everywhere) as writer:
        writer.get_one(Project, "proj_1").name = "after"
        writer.flush()
        began = time.monotonic()
        with read_scope(everywhere) as reader:
            assert reader.get_one(Project, "proj_1").name == "before"
        assert time.monotonic() - began < 4, "one that waits takes five seconds"


def test_the_database_tells_the_time(everywhere: Platform) -> None:
    with read_scope(everywhere) as session:
        first = now_ms(session)
        assert abs(first - time.time() * 1000) < 5000
        time.sleep(0.01)
        assert now_ms(session) > first


def test_many_requests_at_once_are_all_answered(live_api: LiveApi) -> None:
    request = f"GET /v1/projects HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {live_api.key}\r\n\r\n".encode()

    async def one() -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", live_api.port)
        heads = []
        for _ in range(3):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            heads.append(head[:12])
        writer.close()
        return heads

    async def everybody() -> set[bytes]:
        answers = await asyncio.gather(*[one() for _ in range(150)])
        return {head for heads in answers for head in heads}

    assert asyncio.run(everybody()) == {b"HTTP/1.1 200"}


def test_a_second_api_process_on_one_sqlite_file_is_refused(live_api: LiveApi) -> None:
    settings = make_settings(live_api.settings.database, live_api.settings.data_dir)
    variables = {**environment(settings), "GROUNDWORK_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "app.main"], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and "Another API process already serves" in done.stderr
    assert "Traceback" not in done.stderr
