"""A stand-in for the API's side of the worker's door, in memory, over real HTTP: strict, and easy to look into."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "worker-token-for-the-tests"
NEXT = {"drain": "queued", "lost": "queued", "cancel": "cancelled", "pause": "paused"}


class Job:
    def __init__(self, id: str, spec: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
        self.id, self.spec, self.inputs = id, spec, inputs
        self.status, self.command, self.fence = "queued", None, 0
        self.events: dict[tuple[int, int], dict[str, Any]] = {}
        self.log, self.files, self.checkpoints = "", {}, {}
        self.error: dict[str, Any] | None = None
        self.result: dict[str, Any] | None = None
        self.releases: list[str] = []
        self.heartbeats = self.posts = 0

    def steps(self) -> list[int]:
        return sorted(e["step"] for e in self.events.values() if e["type"] == "metrics")


class StandIn:
    """Start it, add jobs, stop and start it again on the same port."""

    def __init__(self, lease: float = 4.0, heartbeat: float = 0.2) -> None:
        self.jobs: dict[str, Job] = {}
        self.blobs: dict[str, bytes] = {}
        self.lease, self.heartbeat, self.port, self.failing = lease, heartbeat, 0, 0
        self.missing_status = 404
        self.deaf_to = ""  # answers this route with 503
        self.fetched: list[str] = []
        self.claims: list[str | None] = []
        self.lock = threading.Lock()
        self.server: ThreadingHTTPServer | None = None
        self.connections: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> StandIn:
        handler = type("Handler", (_Handler,), {"door": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        for connection in list(self.connections):  # kept alive by their own threads
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def add(
        self, id: str = "job_1", inputs: dict[str, bytes] | None = None, type: str = "pretrain", **plan: Any
    ) -> Job:
        files = [self.blob(path, content) for path, content in (inputs or {}).items()]
        spec = {"type": type, "dataset": "ds_1", "metadata": {k: str(v) for k, v in plan.items()}}
        given = [{"id": "ds_1", "role": "dataset", "digest": "d", "files": files}] if files else []
        self.jobs[id] = Job(id, spec, given)
        return self.jobs[id]

    def blob(self, path: str, content: bytes) -> dict[str, Any]:
        sha = hashlib.sha256(content).hexdigest()
        self.blobs[sha] = content
        return {"path": path, "size": len(content), "sha256": sha, "url": f"/internal/v1/blobs/{sha}"}


class _Handler(BaseHTTPRequestHandler):
    door: StandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.door.connections.add(self.connection)

    def finish(self) -> None:
        self.door.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, {"error": {"message": code, "type": "x", "param": None, "code": code}})

    def handle_one(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        door = self.door
        with door.lock:
            if door.failing > 0:
                door.failing -= 1
                return self.answer(503, b"", {"Retry-After": "0"})
            parts = self.path.removeprefix("/internal/v1/").split("/")
            if parts[0] == "claim":
                return self.claim(json.loads(raw))
            if parts[0] == "blobs":
                return self.blob(door.blobs.get(parts[1]))
            self.job(parts, raw)

    do_GET = do_POST = do_PUT = handle_one

    def claim(self, body: dict[str, Any]) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.refuse(401, "invalid_token")
        self.door.claims.append(body["job_id"])
        wanted = [
            job for job in self.door.jobs.values()
            if job.status == "queued" and body["job_id"] in (None, job.id)
            and (not body["short"] or job.spec["type"] in ("ingest", "import", "export", "report"))
        ]  # fmt: skip
        if not wanted:
            return self.answer(204)
        job = wanted[0]
        job.status, job.fence, job.log = "running", job.fence + 1, ""
        newest_first = sorted(job.checkpoints.items(), reverse=True)
        checkpoints = [{"id": f"ckpt_{step}", "step": step, "files": files} for step, files in newest_first]
        self.answer(200, {
            "job_id": job.id, "attempt": f"att_{job.fence}", "fence": job.fence, "token": f"gwa_{job.id}_{job.fence}",
            "lease_seconds": self.door.lease, "heartbeat_seconds": self.door.heartbeat, "spec": job.spec,
            "inputs": job.inputs, "checkpoints": checkpoints, "a_field_of_a_newer_api": 1,
        })

    def blob(self, content: bytes | None) -> None:
        self.door.fetched.append(self.path)
        if content is None:
            return self.refuse(self.door.missing_status, "not_found")
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if start and start >= len(content):
            return self.refuse(416, "bad_range")
        self.answer(206 if start else 200, content[start:])

    def job(self, parts: list[str], raw: bytes) -> None:
        job = self.door.jobs.get(parts[1])
        if job is None or not self.headers["Authorization"].startswith(f"Bearer gwa_{job.id}_"):
            return self.refuse(404, "not_found")
        if parts[2] == "files":
            fence, body = int(self.headers["X-Fence"]), {}
        else:
            body = json.loads(raw)
            fence = body["fence"]
        if fence != job.fence or job.status not in ("running", "cancelling", "pausing"):
            return self.refuse(409, "lease_lost")
        job.posts += 1
        if parts[2] == self.door.deaf_to:
            return self.answer(503, b"", {"Retry-After": "0"})
        getattr(self, f"on_{parts[2]}")(job, body, "/".join(parts[3:]), raw)

    def on_heartbeat(self, job: Job, body: dict[str, Any], *_: Any) -> None:
        job.heartbeats += 1
        self.answer(200, {"command": job.command, "lease_seconds": self.door.lease})

    def on_events(self, job: Job, body: dict[str, Any], *_: Any) -> None:
        assert len(body["events"]) <= 1000
        for event in body["events"]:
            job.events.setdefault((job.fence, event["seq"]), event)
        self.answer(200, {"accepted_seq": max(e["seq"] for e in body["events"])})

    def on_logs(self, job: Job, body: dict[str, Any], *_: Any) -> None:
        if body["offset"] == len(job.log):
            job.log += body["text"]
        self.answer(200, {"next_offset": len(job.log)})

    def on_files(self, job: Job, body: dict[str, Any], path: str, raw: bytes) -> None:
        sha = hashlib.sha256(raw).hexdigest()
        if sha != self.headers["X-Content-SHA256"]:
            return self.refuse(400, "digest_mismatch")
        job.files[path] = raw
        self.answer(201, {"path": path, "size": len(raw), "sha256": sha})

    def on_checkpoints(self, job: Job, body: dict[str, Any], *_: Any) -> None:
        prefix = f"checkpoints/step-{body['step']:09d}"
        paths = [f["path"] for f in body["files"]]
        job.checkpoints[body["step"]] = [self.door.blob(path, job.files[f"{prefix}/{path}"]) for path in paths]
        self.answer(201, {"id": f"ckpt_{body['step']}"})

    def on_complete(self, job: Job, body: dict[str, Any], *_: Any) -> None:
        assert all(f"artifact/{f['path']}" in job.files for f in body["files"])
        job.result, job.status = body, "cancelled" if job.status == "cancelling" else "succeeded"
        self.answer(200, {"status": job.status})

    def on_fail(self, job: Job, body: dict[str, Any], *_: Any) -> None:
        job.error = body["error"]
        job.status = "queued" if body["error"]["class"] == "infra" and job.fence < 3 else "failed"
        self.answer(200, {"status": job.status})

    def on_release(self, job: Job, body: dict[str, Any], *_: Any) -> None:
        job.releases.append(body["reason"])
        job.status = NEXT[body["reason"]]
        self.answer(200, {"status": job.status})
