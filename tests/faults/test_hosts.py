"""F16, F17, F19, F21, F31, F34, F35, F39: what happens to a host, and what a run may do to it."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.conftest import SECRETS, LiveApi
from tests.app.jobs_world import WORKER
from tests.faults.disks import fill, free, slow_disk, small_disk
from tests.faults.invariants import check, engines
from tests.faults.rig import LEASE, Rig, started

pytestmark = pytest.mark.timeout(600)
CGROUP = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def full(request: pytest.FixtureRequest, sqlite_template: Path, tmp_path: Path) -> Iterator[tuple[Rig, Path]]:
    """A rig one of whose folders lies on a small disk: `store`, or all of it with the database."""
    folder = tmp_path / request.param
    with small_disk(folder, 48) as mounted:
        if not mounted:
            pytest.skip("this process may not mount a tmpfs")
        for rig in started(tmp_path if request.param == "store" else folder, "sqlite", sqlite_template):
            yield rig, folder


@pytest.mark.faults
def test_f16_saves_that_take_longer_than_a_lease_cost_no_heartbeat(embedded: Rig, tmp_path: Path) -> None:
    with slow_disk(embedded.folder / "slow", tmp_path / "slow.img", 1 << 20) as throttle:
        if throttle is None:
            pytest.skip("this process may not mount and throttle a disk")
        embedded.kill_worker()
        embedded.start_worker("slow")
        throttle.write_text(str(embedded.workers["slow"].pid))
        job = embedded.submit(steps=11, delay=0.05, checkpoint_every=10, megabytes=int(1.5 * LEASE))
        assert embedded.endings(job) == ["succeeded"]
        moments = [at for run, _, step, at in embedded.traced() if run.startswith(job) and step in (10, 11)]
        assert moments[1] - moments[0] > LEASE, "the disk was not slow"
        check(embedded)
        embedded.kill_worker("slow")


@pytest.mark.faults
@pytest.mark.parametrize("full", ["store"], indirect=True)
def test_f17_a_full_store_answers_507_and_loses_no_job(full: tuple[Rig, Path]) -> None:
    rig, disk = full
    job = rig.submit(steps=100, delay=0.05)
    rig.wait_step(job, 12)
    fill(disk)
    form = {"files": {"file": ("a.txt", b"x" * 100_000)}, "data": {"purpose": "pretrain"}}
    refused = rig.client.ask("POST", "/v1/files", **form)
    assert refused is not None and refused.status_code == 507 and refused.json()["error"]["code"] == "disk_full"
    assert rig.client.job(job)["status"] == "running", "reads go on"
    time.sleep(3)
    free(disk)
    assert rig.wait(job, 120)["status"] == "succeeded"
    check(rig)


@pytest.mark.faults
@pytest.mark.parametrize("full", ["all"], indirect=True)
def test_f17_a_full_database_disk_answers_507_to_writes_and_goes_on_when_freed(full: tuple[Rig, Path]) -> None:
    rig, disk = full
    job = rig.submit(steps=100, delay=0.05)
    rig.wait_step(job, 8)
    fill(disk)
    for _ in range(200):  # until what is left in its last page is used up
        refused = rig.client.ask("POST", "/v1/jobs", json=rig.body())
        if refused is not None and refused.status_code != 201:
            break
    assert refused is not None and refused.status_code in (503, 507), refused
    assert rig.client.http.get(f"/v1/jobs/{job}").status_code == 200, "reads go on"
    free(disk)
    assert rig.wait(job, 120)["status"] in ("succeeded", "failed")
    check(rig, 120)


@pytest.mark.faults
def test_f19_a_run_that_the_kernel_kills_for_its_memory_fails_as_oom_and_is_not_tried_again(patient: Rig) -> None:
    with limited(patient.workers["w1"].pid, 400 << 20):
        job = patient.submit(steps=10, mode="memory", at=3)
        other = patient.submit(steps=5)
        ended = patient.wait(job)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "out_of_memory")
        assert len(ended["attempts"]) == 1
        assert patient.wait(other)["status"] == "succeeded"
        check(patient)


@contextlib.contextmanager
def limited(pid: int, size: int) -> Iterator[None]:
    """A memory limit on a process and its children; skips where none can be set."""
    group = CGROUP / f"groundwork-{pid}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(size))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        pytest.skip(f"no memory limit can be set: {error}")
    try:
        yield
    finally:
        for each in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (CGROUP / "cgroup.procs").write_text(each)
        with contextlib.suppress(OSError):
            group.rmdir()


@pytest.mark.faults
def test_f21_a_drained_worker_gives_its_job_back_without_spending_the_budget(patient: Rig) -> None:
    job = patient.submit(steps=200, delay=0.05)
    patient.wait_step(job, 12)
    patient.start_worker("w2")
    patient.kill_worker("w1", signal.SIGTERM)
    assert patient.workers["w1"].returncode == 0
    ended = patient.wait(job)
    assert [each["outcome"] for each in ended["attempts"]] == ["released", "succeeded"]
    check(patient)


@pytest.mark.faults
@pytest.mark.parametrize(("api", "worker"), [(3600, -3600), (-3600, 3600), (500_000_000, 0)], ids=["+-", "-+", "2042"])
def test_f31_clocks_that_are_hours_or_decades_apart_change_no_lease(
    sqlite_template: Path, tmp_path: Path, api: int, worker: int
) -> None:
    for rig in started(tmp_path, "sqlite", sqlite_template, lease_seconds=60.0, heartbeat_seconds=5.0):
        rig.kill_worker()
        rig.kill_api()
        rig.start_api("tests.faults.shifted", SHIFTED=str(api), SHIFTED_MAIN="app.main")
        rig.start_worker(shifted=worker)
        job = rig.submit(steps=100, delay=0.05)
        assert rig.endings(job) == ["succeeded"]
        assert rig.client.ask("POST", "/v1/jobs", "once", json=rig.body()).json() == (  # type: ignore[union-attr]
            rig.client.ask("POST", "/v1/jobs", "once", json=rig.body()).json()  # type: ignore[union-attr]
        )
        check(rig)


@pytest.mark.faults
@pytest.mark.parametrize(("mode", "ending"), [("abort", "failed"), ("fork", "failed"), ("files", "succeeded"),
                                              ("line", "succeeded")])  # fmt: skip
def test_f34_f35_a_poisonous_run_ends_by_itself_and_harms_no_other(embedded: Rig, mode: str, ending: str) -> None:
    job = embedded.submit(steps=10, mode=mode, at=3)
    others = [embedded.submit(steps=5) for _ in range(3)]
    assert [embedded.wait(other)["status"] for other in others] == ["succeeded"] * 3
    ended = embedded.wait(job)
    assert ended["status"] == ending
    if ending == "failed":
        assert ended["error"]["code"] == "poison_job" and len(ended["attempts"]) == 2
    assert not engines(embedded.folder), "something of it lives on"
    check(embedded)


def test_f39_idle_and_slow_clients_keep_neither_workers_nor_readiness_waiting(live_api: LiveApi) -> None:
    held: list[socket.socket] = []
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {live_api.key}\r\n"
        "Content-Type: multipart/form-data; boundary=XyZ\r\nContent-Length: 1000000\r\n\r\n--XyZ\r\n"
    )
    try:
        for index in range(300):
            connection = socket.create_connection(("127.0.0.1", live_api.port), timeout=10)
            held.append(connection)
            if index % 3:
                connection.sendall(head.encode() if index % 3 == 1 else head[:40].encode())
        token = {"Authorization": f"Bearer {SECRETS['worker_token']}"}
        body = {"job_id": None, "queue": "cpu", "worker": WORKER}
        assert live_api.client.get("/readyz").status_code == 200, "once all of them have been let in"
        for _ in range(5):
            began = time.monotonic()
            assert live_api.client.get("/readyz").status_code == 200
            claimed = live_api.client.post("/internal/v1/claim", json=body, headers=token)
            assert claimed.status_code == 204
            assert time.monotonic() - began < 5
    finally:
        for connection in held:
            connection.close()
