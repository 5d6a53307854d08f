"""Several things at once in the client without asyncio."""

from __future__ import annotations

import threading
import time

import pytest

from groundwork.rest.sync.waiting import sleep, spread


def test_results_come_in_the_order_of_the_items() -> None:
    def work(item: int) -> int:
        sleep(0.02 * (item % 3))
        return item

    assert list(spread(iter(range(12)), work, 4)) == list(range(12))


def test_the_first_that_fails_ends_the_others_before_their_next_try() -> None:
    tries = [0]

    def work(item: int) -> int:
        if item == 0:
            time.sleep(0.05)
            raise OSError("broken")
        while True:
            tries[0] += 1
            sleep(30)

    began = time.monotonic()
    with pytest.raises(OSError, match="broken"):
        list(spread(iter(range(4)), work, 4))
    while any(each.name.startswith("ThreadPoolExecutor") for each in threading.enumerate()):
        assert time.monotonic() - began < 10
        time.sleep(0.01)
    assert tries[0] == 3
