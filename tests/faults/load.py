"""A small load of uploads, jobs, polls and cancels, each sender a thread with draws of its own."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable

from tests.faults.history import Witness
from tests.faults.rig import Rig

MOST_WAITING = 6
"""Jobs that may stand in the queue: what is sent must also end."""


class Load:
    """Starts and stops the senders.

    Args:
        rig: whose API they ask.
        seed: of their draws.
    """

    def __init__(self, rig: Rig, seed: int) -> None:
        self._rig, self._stop = rig, threading.Event()
        self._failed: list[Exception] = []
        self._jobs: list[str] = []
        senders = (self._submit, self._submit, self._poll, self._poll, self._cancel, self._upload)
        self._threads = [
            threading.Thread(target=self._send, args=(sender, random.Random(f"{seed} {n}")), daemon=True)
            for n, sender in enumerate(senders)
        ]

    def start(self) -> None:
        """All of them."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Each ends after the request it is at."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(300)

    def raise_what_failed(self) -> None:
        """The first error of a sender."""
        if self._failed:
            raise self._failed[0]

    def _send(self, sender: Callable[[Witness, random.Random], None], draw: random.Random) -> None:
        client = Witness(self._rig.url, self._rig.key, self._rig.history)
        try:
            while not self._stop.wait(draw.uniform(0.5, 2.0)):
                sender(client, draw)
        except Exception as error:
            self._failed.append(error)
        finally:
            client.close()

    def _submit(self, client: Witness, draw: random.Random) -> None:
        waiting = client.insist("GET", "/v1/jobs", params={"status": "queued"}).json()["data"]
        if len(waiting) > MOST_WAITING:
            return
        body = self._rig.body(steps=draw.randint(3, 60), delay=draw.choice([0.0, 0.02, 0.1]))
        reply = client.insist("POST", "/v1/jobs", json=body)
        assert reply.status_code == 201, reply.text
        self._jobs.append(reply.json()["id"])

    def _poll(self, client: Witness, draw: random.Random) -> None:
        path = f"/v1/jobs/{draw.choice(self._jobs)}" if self._jobs else "/v1/jobs"
        rest = draw.choice(["", "/metrics", "/events", "/checkpoints", "/logs"]) if self._jobs else ""
        assert client.insist("GET", path + rest).status_code == 200

    def _cancel(self, client: Witness, draw: random.Random) -> None:
        if draw.random() < 0.7 or not self._jobs:
            return
        job, verb = draw.choice(self._jobs[-5:]), draw.choice(["cancel", "pause"])
        reply = client.insist("POST", f"/v1/jobs/{job}/{verb}")
        assert reply.status_code in (202, 409), reply.text
        while verb == "pause" and not self._stop.wait(0.3):
            if client.job(job)["status"] != "pausing":
                break
        if verb == "pause":
            self._resume(client, job)

    def _resume(self, client: Witness, job: str) -> None:
        """No job is left paused: it would never end."""
        end = time.monotonic() + 60
        while client.job(job)["status"] in ("pausing", "paused") and time.monotonic() < end:
            client.insist("POST", f"/v1/jobs/{job}/resume")
            time.sleep(0.2)

    def _upload(self, client: Witness, draw: random.Random) -> None:
        if draw.random() < 0.8:
            return
        words = [f"word{n}" for n in range(50)]
        rows = "\n".join(json.dumps({"text": " ".join(draw.choices(words, k=12))}) for _ in range(40)).encode()
        body = {"filename": "pool.jsonl", "bytes": len(rows), "mime_type": "application/jsonl", "purpose": "pretrain"}
        upload = client.insist("POST", "/v1/uploads", json=body).json()["id"]
        cut = draw.randrange(1, len(rows))
        parts = [
            client.insist("POST", f"/v1/uploads/{upload}/parts", files={"data": ("p", piece)}).json()["id"]
            for piece in (rows[:cut], rows[cut:])
        ]
        done = client.insist("POST", f"/v1/uploads/{upload}/complete", json={"part_ids": parts})
        assert done.status_code == 200, done.text
        content = client.insist("GET", f"/v1/files/{done.json()['file']['id']}/content")
        assert content.content == rows
