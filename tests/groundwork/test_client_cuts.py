"""Both clients through a proxy that cuts connections, in front of a real API: nothing is lost, nothing done twice."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from groundwork import Retries, UploadBroken
from tests.app.conftest import make_settings
from tests.app.jobs_world import Worker, message_event, pretrain_body
from tests.clients.conftest import World, start_world
from tests.groundwork.cutting import Cut, Cutter
from tests.groundwork.driven import Opened, opener
from tests.groundwork.serving import ROOT, clean_environment, eventually

QUICK = Retries(times=5, first=0.02, most=0.2)
PART = 20_000


@pytest.fixture(scope="module")
def world(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("cuts")
    shutil.copy(sqlite_template, folder / "groundwork.db")
    yield from start_world(make_settings(f"sqlite:///{folder / 'groundwork.db'}", folder))


@pytest.fixture(params=["sync", "async"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    with opener(request.param) as made:
        yield made


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Text of ten and a half parts, no two alike."""
    path = tmp_path / "pool.txt"
    path.write_bytes(random.Random(str(tmp_path)).randbytes(PART * 10 + PART // 2).hex().encode()[: PART * 21 // 2])
    return path


def port_of(world: World) -> int:
    return world.live.port


def same(one: Path, dataset: Any, other: Path) -> bool:
    return bool(dataset.download(other).read_bytes() == one.read_bytes())


@pytest.mark.parametrize("cut", [Cut("up", 1500), Cut("up", 60_000), Cut("down", 0), Cut("down", 40)])
def test_a_small_upload_that_is_cut_is_one_dataset(
    opened: Opened, world: World, pool: Path, tmp_path: Path, cut: Cut
) -> None:
    direct = opened(world.live.url, world.live.key)
    before = {each.id for each in direct.datasets.list()}
    with Cutter(port_of(world), cut, cut) as proxy:
        made = opened(proxy.url, world.live.key, retries=QUICK).datasets.upload(pool)
        assert not proxy.plans and same(pool, made, tmp_path / "back")
    assert {each.id for each in direct.datasets.list()} - before == {made.id}


def test_an_upload_in_parts_that_is_cut_again_and_again_is_one_dataset(
    opened: Opened, world: World, pool: Path, tmp_path: Path
) -> None:
    cuts = [Cut("up", 30_000), Cut("down", 10), Cut("up", 200), Cut("down", 700), Cut("up", 45_000), Cut("down", 1500)]
    told: list[int] = []
    with Cutter(port_of(world), *cuts) as proxy:
        gw = opened(proxy.url, world.live.key, retries=QUICK)
        gw.uploads.part_bytes = PART
        made = gw.datasets.upload(pool, progress=lambda sent, total: told.append(sent))
        assert made.sha256 == hashlib.sha256(pool.read_bytes()).hexdigest()
        assert same(pool, made, tmp_path / "back") and not proxy.plans
    assert told == sorted(told) and told[-1] == pool.stat().st_size and len(told) == 11


def test_an_upload_that_breaks_for_good_names_what_to_resume_with(
    opened: Opened, world: World, pool: Path, tmp_path: Path
) -> None:
    with Cutter(port_of(world), *[Cut("up", 70_000)] * 400) as proxy:
        gw = opened(proxy.url, world.live.key, retries=Retries(times=1, first=0.01))
        gw.uploads.part_bytes = PART * 4  # a part and its form never fit through the cut
        with pytest.raises(UploadBroken, match=r"pool\.txt broke off .* go on with resume='upl_") as caught:
            gw.datasets.upload(pool)
        proxy.plans.clear()
        # Until the server has seen that it broke off, it says that it is still busy with it: a patient client goes on.
        later = opened(proxy.url, world.live.key)
        later.uploads.part_bytes = gw.uploads.part_bytes
        made = later.datasets.upload(pool, resume=caught.value.upload_id)
        assert same(pool, made, tmp_path / "back")


UPLOAD = """
import sys
from groundwork import Client
file, part, *resume = sys.argv[1:]
with Client() as gw:
    gw.uploads.part_bytes = int(part)
    told = lambda sent, total: print("sent", sent, flush=True)
    began = lambda id: print("began", id, flush=True)
    print("made", gw.datasets.upload(file, progress=told, began=began, resume=resume[0] if resume else None).id)
"""


def test_an_upload_goes_on_in_a_new_process_after_the_first_was_killed(
    world: World, pool: Path, tmp_path: Path
) -> None:
    def process(url: str, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", UPLOAD, str(pool), str(PART), *more]
        environment = clean_environment(url=url, api_key=world.live.key) | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path)

    # Each connection takes two parts and stands still in the third.
    with Cutter(port_of(world), *[Cut("up", PART * 5 // 2, hold=True)] * 20) as proxy:
        first = process(proxy.url)
        assert first.stdout is not None
        id = next(line for line in first.stdout if line.startswith("began")).split()[1]
        with httpx2.Client(base_url=world.live.url, headers={"Authorization": f"Bearer {world.live.key}"}) as plain:
            parts = eventually(lambda: (kept := plain.get(f"/v1/uploads/{id}").json()["parts"])[3:] and kept)
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    with Cutter(port_of(world)) as proxy:
        second = process(proxy.url, id)
        out, _ = second.communicate(timeout=60)
        assert second.returncode == 0, out
        assert proxy.passed["up"] < pool.stat().st_size - PART * (len(parts) - 1), "what was durable was sent again"
    with opener("sync") as plainly:
        made = plainly(world.live.url, world.live.key).datasets.get(out.split()[-1])
        assert same(pool, made, tmp_path / "back")


def test_a_download_that_is_cut_again_and_again_comes_whole_and_once(
    opened: Opened, world: World, pool: Path, tmp_path: Path
) -> None:
    made = opened(world.live.url, world.live.key).datasets.upload(pool)
    with Cutter(port_of(world), *[Cut("down", count) for count in (60_000, 3_000, 0, 300, 90_000)]) as proxy:
        gw = opened(proxy.url, world.live.key, retries=QUICK)
        path = gw.datasets.download(made.id, tmp_path / "back")
        assert path.read_bytes() == pool.read_bytes() and not proxy.plans
        assert proxy.passed["down"] < pool.stat().st_size * 1.2, "it began again instead of going on"


def test_a_job_whose_answer_is_lost_is_one_job(opened: Opened, world: World) -> None:
    dataset = world.dataset()
    with Cutter(port_of(world), Cut("down", 0), Cut("down", 100), Cut("up", 50)) as proxy:
        gw = opened(proxy.url, world.live.key, retries=QUICK)
        job = gw.jobs.create(**pretrain_body(dataset, metadata={"only": dataset}))
        assert [each.id for each in gw.jobs.list(metadata={"only": dataset})] == [job.id] and not proxy.plans
        assert job.cancel().status == "cancelled"


def test_a_live_stream_that_is_cut_tells_everything_once(opened: Opened, world: World) -> None:
    gw = opened(world.live.url, world.live.key)
    job = gw.jobs.create(**pretrain_body(world.dataset()))
    ticket = world.worker.claim(job.id)
    assert ticket is not None
    count = 60

    def tell() -> None:
        with httpx2.Client(base_url=world.live.url, timeout=60) as own:
            worker = Worker(own)  # type: ignore[arg-type]
            for seq in range(1, count + 1):
                assert worker.post(ticket, "events", events=[message_event(seq, f"m{seq}")]).status_code == 200
            worker.complete(ticket)

    teller = threading.Thread(target=tell)
    # The last one goes on to be open, and silent.
    cuts = [*(Cut("down", 1_500 + 700 * n) for n in range(4)), Cut("down", 2_000, hold=True)]
    with Cutter(port_of(world), *cuts) as proxy:
        followed = opened(proxy.url, world.live.key, retries=Retries(times=20, first=0.02, most=0.2))
        followed.jobs.silence = 1.0
        events = []
        for each in followed.jobs.stream(job.id):
            events.append(each)
            if len(events) == 1:
                teller.start()
        assert not proxy.plans
    teller.join()
    codes = [each.event.code for each in events if each.event]
    assert [code for code in codes if code.startswith("m")] == [f"m{n}" for n in range(1, count + 1)]
    assert codes[:2] == ["queued", "running"] and codes[-1] == "succeeded" and events[-1].name == "done"
