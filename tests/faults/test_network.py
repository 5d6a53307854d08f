"""F14 and F15: what the network between worker and API may do, by a proxy in between; F31's jumps by a stopped host."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.faults.invariants import check, engines
from tests.faults.proxy import Mode, Proxy
from tests.faults.rig import Rig
from tests.services import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture
def between(rig: Rig) -> Iterator[Proxy]:
    """A proxy between the API and the rig's one worker."""
    rig.kill_worker()
    with Proxy(int(rig.url.rpartition(":")[2])) as proxy:
        rig.start_worker(api_url=proxy.url)
        yield proxy
        rig.kill_worker()


@pytest.mark.parametrize("mode", ["refuse", "swallow", "swallow_requests", "swallow_answers"])
def test_f14_a_short_partition_costs_no_attempt_and_no_point(patient: Rig, mode: Mode) -> None:
    patient.kill_worker()
    with Proxy(int(patient.url.rpartition(":")[2])) as proxy:
        patient.start_worker(api_url=proxy.url)
        job = patient.submit(steps=80, delay=0.05)
        patient.wait_step(job, 10)
        proxy.mode = mode
        time.sleep(4)
        proxy.mode = "pass"
        assert patient.endings(job) == ["succeeded"]
        check(patient)


@pytest.mark.parametrize("mode", ["swallow", "swallow_answers"])
def test_f14_a_worker_cut_off_for_long_is_dead_before_another_takes_over(rig: Rig, between: Proxy, mode: Mode) -> None:
    job = rig.submit(steps=400, delay=0.05)
    rig.wait_step(job, 12)
    rig.start_worker("w2")
    between.mode = mode
    rig.wait(job)
    between.mode = "pass"
    ended = rig.wait(job)
    if mode == "swallow":
        assert len(ended["attempts"]) > 1
    check(rig)  # I3: the two attempts' steps do not overlap


@pytest.mark.parametrize("mode", ["delay", "lossy"])
def test_f15_delays_and_resets_in_the_middle_have_no_second_effect(rig: Rig, between: Proxy, mode: Mode) -> None:
    between.mode = mode
    jobs = [rig.submit(steps=40, delay=0.02) for _ in range(2)]
    assert [rig.wait(job, 120)["status"] for job in jobs] == ["succeeded"] * 2
    between.mode = "pass"
    check(rig)


def test_f15_answers_that_break_off_are_asked_for_again(patient: Rig) -> None:
    patient.kill_worker()
    with Proxy(int(patient.url.rpartition(":")[2])) as proxy:
        patient.start_worker(api_url=proxy.url)
        job = patient.submit(steps=100, delay=0.05)
        patient.wait_step(job, 10)
        proxy.mode = "cut_answers"
        time.sleep(4)
        proxy.mode = "pass"
        assert patient.endings(job) == ["succeeded"]
        check(patient)


def test_f31_a_host_that_stood_still_past_its_lease_writes_nothing_when_it_wakes(rig: Rig) -> None:
    job = rig.submit(steps=400, delay=0.05)
    rig.wait_step(job, 12)
    stopped = [rig.workers["w1"].pid, *engines(rig.folder)]
    for pid in stopped:
        rig.signal(pid, signal.SIGSTOP)
    rig.start_worker("w2")
    wait_for(lambda: rig.client.job(job)["attempts"][-1]["attempt"] > 1, 90)
    for pid in reversed(stopped):
        rig.signal(pid, signal.SIGCONT)
    assert len(rig.endings(job)) > 1
    # A stopped machine takes its step when it wakes: that is what the fence is for, so only its writes are looked at.
    rig.forget_steps_after_waking(job)
    check(rig)
