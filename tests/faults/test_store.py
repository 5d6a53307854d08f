"""F38: an S3-compatible store that refuses, cuts, loses and stalls while runs save and clients upload."""

from __future__ import annotations

import json
import time

import pytest

from tests.faults.history import Witness
from tests.faults.invariants import check
from tests.faults.proxy import Mode, Proxy
from tests.faults.rig import Rig
from tests.services import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.mark.parametrize("mode", ["refuse", "lossy", "cut_answers", "delay"])
def test_f38_a_run_outlives_a_store_that_fails_while_it_saves(far_store: tuple[Rig, Proxy], mode: Mode) -> None:
    rig, proxy = far_store
    job = rig.submit(steps=120, delay=0.05)
    rig.wait_step(job, 12)
    proxy.mode = mode
    time.sleep(5)
    proxy.mode = "pass"
    assert rig.endings(job) == ["succeeded"]
    check(rig)


@pytest.mark.parametrize("mode", ["refuse", "lossy", "cut_answers"])
def test_f38_an_upload_into_a_failing_store_is_refused_whole_and_can_be_sent_again(
    far_store: tuple[Rig, Proxy], mode: Mode
) -> None:
    rig, proxy = far_store
    client = Witness(rig.url, rig.key, rig.history)
    rows = "".join(json.dumps({"text": f"row {n} of a pool"}) + "\n" for n in range(2000)).encode()
    proxy.mode = mode
    answers = [client.ask("POST", "/v1/datasets", "the-key", files={"file": ("pool.jsonl", rows)}) for _ in range(3)]
    assert {reply.status_code for reply in answers if reply is not None} <= {201, 409, 503}
    proxy.mode = "pass"
    made = client.insist("POST", "/v1/datasets", files={"file": ("pool.jsonl", rows)})
    assert made.status_code == 201, made.text
    listed = client.insist("GET", "/v1/datasets").json()["data"]
    for dataset in listed:
        content = client.insist("GET", f"/v1/datasets/{dataset['id']}/content")
        assert content.status_code != 200 or content.content == rows or dataset["id"] == rig.dataset
    wait_for(lambda: client.insist("GET", "/readyz").status_code == 200, 30)
    client.close()
    check(rig)
