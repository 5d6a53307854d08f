"""Requests that are odd in ways no client is."""

from __future__ import annotations

import json
import time

import pytest
from starlette.requests import Request

from app.edge import resent
from ssl_core.errors import SpecError
from ssl_core.requests import strict_json


def test_many_names_with_the_last_one_twice_are_refused_at_once() -> None:
    names = [f"{number:05d}" for number in range(60_000)]
    body = "{" + ",".join(f"{json.dumps(name)}:0" for name in [*names, names[-1]]) + "}"
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        strict_json.parse(body.encode())
    # Each name against each other took a minute and a half.
    assert caught.value.code == "duplicate_key" and time.process_time() - began < 10


@pytest.mark.parametrize(("count", "again"), [("0", False), ("2", True), ("\u00b2", False), ("-1", False), ("", False)])
def test_a_count_of_retries_is_a_number_or_nothing(count: str, again: bool) -> None:
    headers = [(b"x-stainless-retry-count", count.encode("latin-1"))]
    assert resent(Request({"type": "http", "headers": headers})) is again
