"""The worker's side of the door: HTTP with a timeout on every call, retries with backoff, idempotent callbacks.

    ApiClient.claim(job) -> Ticket        worker token
    ApiClient.door(ticket) -> Door        attempt token: everything else, about one attempt only
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2

from ssl_core import tracing
from worker.settings import WorkerSettings
from worker.ticket import RemoteFile, Ticket

CHUNK = 1 << 20
SHORT = "the answer ended before the announced size"
ReleaseReason = Literal["drain", "cancel", "pause", "lost"]


class ApiTrouble(Exception):
    """The API could not be asked, or said no."""


class Unreachable(ApiTrouble):
    """No answer, or only 5xx and 429, for as long as the caller wanted to wait."""


class LeaseLost(ApiTrouble):
    """Another attempt owns the job now, or nobody does: whatever this one does no longer counts (R6)."""


class Refused(ApiTrouble):
    """The API understood and said no; a retry will not help."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class Call:
    """One request that may be sent again: its effect is the same however often it arrives (R8)."""

    method: str
    path: str
    token: str = field(repr=False)
    json: Any = None
    body: Callable[[], Iterable[bytes]] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    timeout: float = 15.0


class Patience:
    """How long to try again, and the event that ends the waiting at once."""

    def __init__(self, seconds: float, abort: threading.Event | None = None) -> None:
        self.abort = abort or threading.Event()
        self._until = time.monotonic() + seconds
        self._tries = 0

    def wait(self, why: object, retry_after: str | None = None) -> None:
        """Sleep with backoff and jitter before the next try. Raises Unreachable once patience is over."""
        self._tries += 1
        pause = min(0.1 * 2 ** min(self._tries, 8), 15) * random.uniform(0.5, 1)
        if retry_after and retry_after.isdigit():
            pause = max(pause, min(int(retry_after), 60))
        if time.monotonic() + pause > self._until or self.abort.wait(pause):
            raise Unreachable(str(why) or type(why).__name__)


class ApiClient:
    """One connection pool to one API; safe to use from several threads."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._token = settings.worker_token.get_secret_value()
        self._queue = settings.queue
        limits = httpx2.Limits(max_connections=8 + 8 * (settings.slots + settings.short_slots), keepalive_expiry=30)
        # The environment's proxies are for the internet, not for the platform's own API.
        self.http = httpx2.Client(base_url=settings.api_url, limits=limits, trust_env=False)

    def claim(
        self, job_id: str | None, worker: dict[str, Any], patience: Patience, short: bool = False
    ) -> Ticket | None:
        """The ticket of `job_id`, or of any queued job, `short`: that trains nothing; None where there is none.

        Raises:
            Unreachable: no answer within `patience`.
            Refused: the worker token is wrong.
        """
        body = {"job_id": job_id, "queue": self._queue, "short": short, "worker": worker}
        reply = self.send(Call("POST", "/internal/v1/claim", self._token, json=body), patience)
        return None if reply.status_code == 204 else Ticket.model_validate(reply.json())

    def door(self, ticket: Ticket, abort: threading.Event) -> Door:
        """The routes of one attempt; `abort` ends every wait for the API."""
        return Door(self, ticket, abort)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def send(self, call: Call, patience: Patience) -> httpx2.Response:
        """The answer below 400. Raises Unreachable, LeaseLost or Refused."""
        while True:
            try:
                reply = self.http.request(
                    call.method, call.path, json=call.json, content=call.body() if call.body else None,
                    headers=_headers(call), timeout=_timeout(call.timeout),
                )  # fmt: skip
            except httpx2.TransportError as error:
                patience.wait(f"{type(error).__name__}: {error}")
                continue
            if not reply.is_error:
                return reply
            _raise_unless_worth_retrying(reply)
            patience.wait(f"HTTP {reply.status_code}", reply.headers.get("Retry-After"))

    def download(self, call: Call, target: Path, size: int, patience: Patience) -> None:
        """Bring `target` to `size` bytes, going on from what it already holds.

        Raises:
            Unreachable, Refused: as `send`.
        """
        short_answers = 0
        while (have := target.stat().st_size if target.exists() else 0) < size:
            try:
                why = self._download_once(call, target, have)
                short_answers += why == SHORT
            except httpx2.TransportError as error:
                why = f"{type(error).__name__}: {error}"
            if why and short_answers > 2:
                break
            if why:
                patience.wait(why)
        target.touch()
        if target.stat().st_size != size:
            raise Refused(200, "wrong_size", f"{call.path} has {target.stat().st_size} bytes, {size} were announced")

    def _download_once(self, call: Call, target: Path, have: int) -> str:
        """Why it has to be asked again; empty where something came."""
        headers = _headers(call) | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self.http.stream("GET", call.path, headers=headers, timeout=_timeout(call.timeout)) as reply:
            if reply.status_code == 416:
                target.unlink()
                target.touch()
                return SHORT
            if reply.is_error:
                reply.read()
                _raise_unless_worth_retrying(reply)
                return f"HTTP {reply.status_code}"
            with target.open("ab" if reply.status_code == 206 else "wb") as sink:
                # As they come: a chunk size would hold bytes back, and a broken connection would take them along.
                for chunk in reply.iter_raw():
                    sink.write(chunk)
        return "" if target.stat().st_size > have else SHORT


class Door:
    """What one attempt may say. Every method but `heartbeat` waits for a lost API; LeaseLost means: drop it all."""

    def __init__(self, client: ApiClient, ticket: Ticket, abort: threading.Event) -> None:
        self._client, self._ticket, self._abort = client, ticket, abort
        self._base = f"/internal/v1/jobs/{ticket.job_id}"

    def heartbeat(self, timeout: float) -> str | None:
        """The job's standing command: None, `cancel` or `pause`. Asks once."""
        return self._post("heartbeat", {}, patience=0, timeout=timeout).get("command")

    def events(self, events: list[dict[str, Any]], patience: float) -> int:
        """Highest `seq` the API holds now."""
        return int(self._post("events", {"events": events}, patience)["accepted_seq"])

    def logs(self, offset: int, text: str, patience: float) -> int:
        """Where the next piece of the raw output belongs."""
        return int(self._post("logs", {"offset": offset, "text": text}, patience)["next_offset"])

    def put_file(self, path: str, source: Path, sha256: str, patience: float) -> None:
        """Stream one file up; the same digest again costs the API nothing."""
        headers = {
            "X-Fence": str(self._ticket.fence), "X-Content-SHA256": sha256,
            "Content-Length": str(source.stat().st_size), "Content-Type": "application/octet-stream",
        }  # fmt: skip
        call = Call(
            "PUT", f"{self._base}/files/{path}", self._ticket.token,
            body=lambda: _chunks(source), headers=headers, timeout=120,
        )  # fmt: skip
        self._send(call, patience)

    def checkpoint(self, step: int, manifest: dict[str, Any], patience: float) -> None:
        """Commit a checkpoint whose files are up."""
        body = {"step": step, "files": manifest["files"], "metrics": manifest.get("metrics", {})}
        self._post("checkpoints", body, patience)

    def complete(self, files: list[dict[str, Any]], verdict: dict[str, Any], patience: float) -> str:
        """The job's status after the result was accepted."""
        body = {"files": files, "metrics": verdict.get("metrics", {}), "summary": verdict.get("summary", {})}
        return str(self._post("complete", body, patience)["status"])

    def fail(self, error: dict[str, Any], patience: float) -> str:
        """The job's status after the failure was recorded."""
        return str(self._post("fail", {"error": error}, patience)["status"])

    def release(self, reason: ReleaseReason, patience: float) -> str:
        """The job's status after it was given back."""
        return str(self._post("release", {"reason": reason}, patience)["status"])

    def fetch(self, file: RemoteFile, target: Path, patience: float) -> None:
        """Bring `target` to the file's full length; the digest is the caller's to check."""
        call = Call("GET", file.url, self._ticket.token, timeout=60)
        self._client.download(call, target, file.size, Patience(patience, self._abort))

    def _post(self, verb: str, body: dict[str, Any], patience: float, timeout: float = 15.0) -> dict[str, Any]:
        body = {"fence": self._ticket.fence, **body}
        call = Call("POST", f"{self._base}/{verb}", self._ticket.token, json=body, timeout=timeout)
        answer: dict[str, Any] = self._send(call, patience).json()
        return answer

    def _send(self, call: Call, patience: float) -> httpx2.Response:
        try:
            return self._client.send(call, Patience(patience, self._abort))
        except Refused as error:
            # A dead token opens nothing: 401, 403 and 404 say the same as `lease_lost` does.
            if error.status in (401, 403, 404):
                raise LeaseLost(str(error)) from error
            raise


def _headers(call: Call) -> dict[str, str]:
    # What is sent every few seconds would drown a trace.
    traced = {} if call.path.endswith(("/heartbeat", "/events", "/logs")) else tracing.headers()
    return {"Authorization": f"Bearer {call.token}", **traced, **call.headers}


def _timeout(seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(seconds, connect=min(5.0, seconds), pool=seconds)


def _chunks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _raise_unless_worth_retrying(reply: httpx2.Response) -> None:
    if reply.status_code in (408, 425, 429) or reply.status_code >= 500:
        return
    try:
        error = reply.json()["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "unreadable", reply.text[:200]
    if code == "lease_lost":
        raise LeaseLost(message)
    raise Refused(reply.status_code, code, message)
