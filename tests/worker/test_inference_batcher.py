"""One computing thread, fair and bounded."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import Any

import pytest

from worker.inference_batcher import Batcher, Work
from worker.inference_errors import Busy


class Model:
    """Doubles numbers, remembers its batches, and waits at the gate."""

    def __init__(self, open: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        if open:
            self.gate.set()

    def compute(self, samples: list[int]) -> list[int]:
        self.batches.append(list(samples))
        self.entered.set()
        assert self.gate.wait(10)
        if -1 in samples:
            raise ValueError("minus one")
        return [2 * sample for sample in samples]

    def work(self, samples: list[int], group: str = "a", budget: int = 100) -> Work:
        return Work(group, self.compute, samples, [max(1, abs(sample)) for sample in samples], budget)


@pytest.fixture
def batcher() -> Any:
    made = Batcher(max_waiting=1000)
    yield made
    made.close()


def held(batcher: Batcher, model: Model) -> Future[list[Any]]:
    """A first request that is being computed until the gate opens."""
    first = batcher.submit(model.work([1]))
    assert model.entered.wait(5)
    return first


def test_answers_keep_the_order_of_their_samples(batcher: Batcher) -> None:
    samples = [5, 90, 1, 40, 7, 60]
    assert batcher.submit(Model().work(samples)).result(5) == [2 * sample for sample in samples]


def test_waiting_requests_of_one_model_share_a_batch(batcher: Batcher) -> None:
    model = Model(open=False)
    first = held(batcher, model)
    others = [batcher.submit(model.work([10 + at, 20 + at], budget=500)) for at in range(5)]
    model.gate.set()
    wait([first, *others], 5)
    assert [future.result() for future in others] == [[20 + 2 * at, 40 + 2 * at] for at in range(5)]
    assert len(model.batches) == 2


def test_requests_of_different_groups_never_share(batcher: Batcher) -> None:
    model = Model(open=False)
    first = held(batcher, model)
    others = [batcher.submit(model.work([10], group=group)) for group in ("b", "c")]
    model.gate.set()
    wait([first, *others], 5)
    assert model.batches == [[1], [10], [10]]


def test_no_batch_is_over_the_budget(batcher: Batcher) -> None:
    model = Model()
    batcher.submit(model.work(list(range(1, 60)), budget=100)).result(5)
    assert all(sum(batch) <= 100 for batch in model.batches) and len(model.batches) > 15


def test_a_sample_over_the_budget_is_computed_alone(batcher: Batcher) -> None:
    model = Model()
    assert batcher.submit(model.work([300, 5], budget=100)).result(5) == [600, 10]
    assert [300] in model.batches


def test_a_small_request_does_not_wait_for_a_large_one(batcher: Batcher) -> None:
    model = Model(open=False)
    first = held(batcher, model)
    large = batcher.submit(model.work([50] * 18, budget=100))
    small = batcher.submit(model.work([3], budget=100))
    model.gate.set()
    wait([first, large, small], 5)
    assert 3 in model.batches[1] and large.result() == [100] * 18


def test_a_large_request_is_not_held_up_for_ever_by_small_ones(batcher: Batcher) -> None:
    model = Model(open=False)
    first = held(batcher, model)
    large = batcher.submit(model.work([50] * 4, budget=100))
    small = [batcher.submit(model.work([40 + at % 2], budget=100)) for at in range(16)]
    model.gate.set()
    wait([first, large, *small], 5)
    turns = [at for at, batch in enumerate(model.batches) if 50 in batch]
    assert turns == [1, 2, 3, 4], model.batches


def test_models_take_turns_however_much_waits_for_one(batcher: Batcher) -> None:
    model = Model(open=False)
    first = held(batcher, model)
    crowd = [batcher.submit(model.work([60, 50], group="b", budget=100)) for _ in range(6)]
    other = batcher.submit(model.work([7, 99], group="c", budget=100))
    model.gate.set()
    wait([first, *crowd, other], 5)
    assert [7] in model.batches[:3] and [99] in model.batches[:5], model.batches
    assert batcher.waiting == 0


def test_a_full_queue_says_so_and_takes_work_again_later(batcher: Batcher) -> None:
    model = Model(open=False)
    first = held(batcher, model)
    second = batcher.submit(model.work([900]))
    with pytest.raises(Busy) as caught:
        batcher.submit(model.work([200]))
    assert caught.value.status == 503
    model.gate.set()
    wait([first, second], 5)
    assert batcher.submit(model.work([200])).result(5) == [400]


def test_a_request_over_the_bound_is_taken_when_nothing_waits(batcher: Batcher) -> None:
    assert batcher.submit(Model().work([50] * 40)).result(5) == [100] * 40


def test_an_error_reaches_its_callers_and_the_thread_lives_on(batcher: Batcher) -> None:
    model = Model()
    with pytest.raises(ValueError, match="minus one"):
        batcher.submit(model.work([-1, 5])).result(5)
    assert batcher.submit(model.work([200])).result(5) == [400]
    assert batcher.waiting == 0


def test_a_caller_that_goes_away_frees_its_place(batcher: Batcher) -> None:
    model = Model(open=False)
    first = held(batcher, model)
    gone = batcher.submit(model.work([50] * 18, group="b", budget=50))
    assert gone.cancel()
    after = batcher.submit(model.work([7]))
    model.gate.set()
    wait([first, after], 5)
    assert after.result() == [14]
    assert batcher.submit(model.work([4])).result(5) == [8]
    assert sum(50 in batch for batch in model.batches) == 0 and batcher.waiting == 0


def test_closing_finishes_what_is_queued_and_takes_nothing_new() -> None:
    batcher, model = Batcher(max_waiting=1000), Model(open=False)
    first = held(batcher, model)
    second = batcher.submit(model.work([5]))
    closer = threading.Thread(target=batcher.close)
    closer.start()
    model.gate.set()
    closer.join(5)
    assert (first.result(0), second.result(0)) == ([2], [10])
    with pytest.raises(Busy):
        batcher.submit(model.work([1]))
