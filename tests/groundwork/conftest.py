"""A server that the tests of a module share."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx2
import pytest

from tests.groundwork.serving import Served


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    served = Served(tmp_path_factory.mktemp("gw") / "data").ready()
    try:
        headers = {"Authorization": f"Bearer {re.findall(r'gw_[A-Za-z0-9_]+', served.printed())[0]}"}
        with httpx2.Client(base_url=served.state()["url"], headers=headers, timeout=60) as opened:
            yield opened
    finally:
        served.process.terminate()
        served.process.wait(30)
