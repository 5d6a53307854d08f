"""How many requests of a batch are answered together."""

from __future__ import annotations

from typing import Any

import pytest

from ssl_core.requests import run
from ssl_core.requests.lines import Request


def request(given: Any, size: int = 100) -> Request:
    return Request(1, "0", "a", {"input": given}, size)


@pytest.mark.parametrize(
    ("requests", "portions"),
    [
        ([request("a")] * 130, [64, 64, 2]),
        ([request(["a"] * 1000)] * 5, [2, 2, 1]),
        ([request(["a"] * 2048), request("a"), request("a")], [1, 2]),
        ([request([1, 2, 3] * 1000)] * 5, [5]),
        ([request("a", 5 << 20)] * 2 + [request("a")] * 3, [1, 4]),
        ([request(None), request(7), request({})], [3]),
        ([], []),
    ],
)
def test_a_portion_is_bounded_in_requests_items_and_bytes(requests: list[Request], portions: list[int]) -> None:
    found = list(run._several(iter(requests)))
    assert [len(some) for some in found] == portions
    assert [each for some in found for each in some] == requests
