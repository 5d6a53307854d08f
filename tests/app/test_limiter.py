"""A project's requests of a minute: counted once for all processes, refused with the time to wait (B80)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from app.auth import limiter
from app.auth.limiter import Limiter, OwnCount
from app.errors import TooMany
from tests.app.conftest import Api, make_settings, serve
from tests.app.jobs_world import Worker, pretrain_body, ready_dataset
from tests.services import Valkey


@pytest.fixture
def limited(sqlite_url: str, tmp_path: Path) -> Iterator[Api]:
    yield from serve(make_settings(sqlite_url, tmp_path, requests_per_minute=5))


def test_what_is_left_is_told_and_beyond_it_comes_429(limited: Api) -> None:
    left = []
    for _ in range(5):
        answer = limited.client.get("/v1/projects")
        assert answer.status_code == 200 and answer.headers["ratelimit-policy"] == '"requests";q=5;w=60'
        left.append(int(answer.headers["ratelimit"].partition("r=")[2].partition(";")[0]))
    assert left == [4, 3, 2, 1, 0]
    refused = limited.client.get("/v1/projects")
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')
    assert limited.with_scopes("read").get("/v1/projects").status_code == 429, "keys of a project count together"
    assert limited.stranger.get("/v1/projects").status_code == 200, "others go on"
    assert limited.anonymous.get("/v1/projects").status_code == 401
    assert limited.anonymous.get("/healthz").status_code == 200


def test_workers_are_not_limited(limited: Api) -> None:
    dataset = ready_dataset(limited.platform, limited.project_id)
    job = limited.client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"]
    worker = Worker(limited.anonymous)
    ticket = worker.claim(job)
    assert ticket is not None
    for seq in range(1, 12):
        event = {"seq": seq, "time": 0.0, "type": "metrics", "step": seq, "values": {"loss": 1.0}}
        assert worker.post(ticket, "events", events=[event]).status_code == 200


def test_a_window_ends_by_the_clock() -> None:
    now = [100.0]
    count = OwnCount(3, lambda: now[0])
    assert count.reserve("p", 2) == (2, 1, 60) and count.reserve("p", 2) == (1, 0, 60)
    now[0] += 59
    assert count.reserve("p", 1) == (0, 0, 1) and count.reserve("q", 1).permits == 1
    now[0] += 1
    assert count.reserve("p", 1) == (1, 2, 60)


def spent(one: Limiter, project: str, tries: int) -> int:
    """How many of these tries are let through."""
    done = 0
    for _ in range(tries):
        try:
            one.take(project)
            done += 1
        except TooMany:
            pass
    return done


def test_processes_share_one_count(valkey: Valkey) -> None:
    made = [one for one in (Limiter.open(1000, valkey.url) for _ in range(4)) if one is not None]
    found: list[int] = []
    threads = [threading.Thread(target=lambda one=one: found.append(spent(one, "p", 400))) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found) == 1000
    fresh = Limiter.open(1000, valkey.url)
    assert fresh is not None
    with pytest.raises(TooMany) as refused:
        fresh.take("p")
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
    client = redis.Redis.from_url(valkey.url.replace("redis+socket://", "unix://").replace("virtual_host=", "db="))
    assert 0 < client.pttl("groundwork:rate:p") <= 60_000
    client.delete("groundwork:rate:p")
    assert spent(fresh, "p", 3) == 0, "who was refused does not ask again before the time"
    last = Limiter.open(1000, valkey.url)
    assert last is not None and spent(last, "p", 3) == 3


def test_without_its_broker_a_process_counts_for_itself_and_stays_quick(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Limiter.open(100, valkey.url)
    assert made is not None and spent(made, "p", 10) == 10
    valkey.kill()
    began = time.monotonic()
    assert spent(made, "p", 300) == 100
    assert time.monotonic() - began < 5
    monkeypatch.setattr(limiter, "_PAUSE_SECONDS", 0.0)
    valkey.start()
    shared: Any = made._count
    shared._away_until = 0.0
    assert spent(made, "q", 5) == 5 and shared._away_until == 0.0


def test_none_is_none() -> None:
    assert Limiter.open(0, "") is None
