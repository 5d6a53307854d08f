"""What clients asked and were told, written down as it happens and never changed: the witness of the invariants."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2

PATIENCE = 240.0


@dataclass(frozen=True)
class Asked:
    """One request and its answer; `status` 0: no answer came.

    Attributes:
        id: of the object in the answer, if it is one.
        sha256: of the answer's body.
        found: forbidden strings that the answer holds.
    """

    at: float
    method: str
    path: str
    key: str
    status: int
    id: str
    sha256: str
    retry_after: str
    code: str
    found: tuple[str, ...]


class History:
    """An append-only file of requests, shared by every client of a test.

    Args:
        file: one JSON line for each request.
        forbidden: what no answer may hold: secrets, and the first line of a traceback.
    """

    def __init__(self, file: Path, forbidden: tuple[str, ...]) -> None:
        self._file, self.forbidden = file, (*forbidden, "Traceback (most recent call last)")
        self._lock = threading.Lock()
        file.touch()

    def write(self, asked: Asked) -> None:
        """Add one."""
        with self._lock, self._file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(asdict(asked)) + "\n")

    def read(self) -> list[Asked]:
        """All of them, oldest first."""
        lines = self._file.read_text(encoding="utf-8").splitlines()
        return [Asked(**(line | {"found": tuple(line["found"])})) for line in map(json.loads, lines)]


class Witness:
    """A client whose every request is in the history.

    Args:
        url: of the API.
        key: an API key.
        history: where it writes.
    """

    def __init__(self, url: str, key: str, history: History) -> None:
        self.http = httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20, trust_env=False
        )  # fmt: skip
        self._history = history

    def ask(self, method: str, path: str, key: str = "", **options: Any) -> httpx2.Response | None:
        """One try; None where no answer came."""
        headers = {"Idempotency-Key": key} if key else {}
        at = time.time()
        try:
            reply = self.http.request(method, path, headers=headers, **options)
        except httpx2.TransportError:
            self._history.write(Asked(at, method, path, key, 0, "", "", "", "", ()))
            return None
        self._history.write(_asked(at, key, reply, self._history.forbidden))
        return reply

    def insist(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Until there is an answer other than 429 and 503; a POST under one Idempotency-Key."""
        key = uuid.uuid4().hex if method == "POST" else ""
        end = time.monotonic() + PATIENCE
        while True:
            reply = self.ask(method, path, key, **options)
            in_flight = reply is not None and reply.status_code == 409 and "idempotency_in_flight" in reply.text
            if reply is not None and reply.status_code not in (429, 503, 507) and not in_flight:
                return reply
            assert time.monotonic() < end, f"{method} {path} was not answered in {PATIENCE:g} s"
            time.sleep(0.1)

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it stands."""
        reply = self.insist("GET", f"/v1/jobs/{job_id}")
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def close(self) -> None:
        """Close the connections."""
        self.http.close()


def _asked(at: float, key: str, reply: httpx2.Response, forbidden: tuple[str, ...]) -> Asked:
    body = reply.content
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    told = parsed if isinstance(parsed, dict) else {}
    error = told.get("error") if reply.status_code >= 400 else None
    return Asked(
        at, reply.request.method, reply.request.url.path, key, reply.status_code, str(told.get("id") or ""),
        hashlib.sha256(body).hexdigest(), reply.headers.get("retry-after", ""),
        str(error.get("code") or "") if isinstance(error, dict) else "",
        tuple(each for each in forbidden if each.encode() in body),
    )  # fmt: skip
