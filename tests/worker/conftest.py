"""Fixtures of the worker's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.door import StandIn
from tests.worker.harness import InThread, WorkerProcess


@pytest.fixture
def door() -> Iterator[StandIn]:
    """The stand-in API, listening."""
    stand_in = StandIn().start()
    yield stand_in
    stand_in.stop()


@pytest.fixture
def start(door: StandIn, tmp_path: Path) -> Iterator[Callable[..., InThread]]:
    """Start a supervisor on the door's jobs; drained at the end."""
    started: list[InThread] = []

    def begin(**changes: Any) -> InThread:
        started.append(InThread(door, tmp_path, **changes))
        return started[-1]

    yield begin
    for each in started:
        each.supervisor.drain.set()
        each.thread.join(10)


@pytest.fixture
def spawn(door: StandIn, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Start a worker process; killed at the end, with whatever it left."""
    started: list[WorkerProcess] = []

    def begin(**changes: Any) -> WorkerProcess:
        started.append(WorkerProcess(door, tmp_path, **changes))
        return started[-1]

    yield begin
    for each in started:
        if each.process.poll() is None:
            each.kill()
