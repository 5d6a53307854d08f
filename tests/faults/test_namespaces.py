"""Several hosts with a network of their own each: they share the work, and one whose cable is pulled is fenced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.invariants import check
from tests.faults.namespaces import Host, hosts
from tests.faults.rig import Rig

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture
def apart(rig: Rig) -> Iterator[list[Host]]:
    """Two hosts, which reach the API by their cables alone; no worker is there yet."""
    with hosts(2) as found:
        if not found:
            pytest.skip("this process may not make network namespaces")
        rig.kill_worker()
        rig.kill_api()
        rig.start_api(GROUNDWORK_HOST="0.0.0.0")
        rig.prefixes |= {host.name: host.prefix for host in found}
        yield found
        for host in found:
            rig.kill_worker(host.name)


def start_worker(rig: Rig, host: Host) -> None:
    rig.start_worker(host.name, api_url=f"http://{host.gateway}:{rig.url.rpartition(':')[2]}")


def test_f14_hosts_share_the_work_and_one_whose_cable_is_pulled_is_fenced(rig: Rig, apart: list[Host]) -> None:
    first, second = apart
    start_worker(rig, first)
    long = rig.submit(steps=400, delay=0.05)
    rig.wait_step(long, 12)
    start_worker(rig, second)
    beside = [rig.submit(steps=10) for _ in range(3)]
    assert [rig.endings(job) for job in beside] == [["succeeded"]] * 3, "the second host works beside the first"
    first.pull()
    ended = rig.wait(long)
    assert ended["status"] == "succeeded" and len(ended["attempts"]) == 2
    first.plug()
    again = [rig.submit(steps=60, delay=0.05) for _ in range(2)]
    assert [rig.wait(job)["status"] for job in again] == ["succeeded"] * 2
    check(rig)
