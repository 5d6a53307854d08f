"""A hub on this machine: as much of its HTTP as `huggingface_hub` asks for, large files behind a redirect."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40


class _Hub(BaseHTTPRequestHandler):
    """Serves `server.folder` as the repository `some/model`; its safetensors stand at another address."""

    server: _Server

    def do_GET(self) -> None:
        """`/api/models/<repo>/...`, `/<repo>/resolve/<commit>/<file>`, `/store/<file>`."""
        self._answer(True)

    def do_HEAD(self) -> None:
        """The same without a body."""
        self._answer(False)

    def _answer(self, whole: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path, self.headers.get("Authorization")))
        parts = path.strip("/").split("/")
        if parts[:3] == ["api", "models", "some"] and parts[3] == "model":
            self._tell(parts[4:], whole)
        elif parts[:3] == ["some", "model", "resolve"] and (self.server.folder / parts[-1]).is_file():
            self._file(parts[-1], whole, parts[-1].endswith(".safetensors"))
        elif parts[0] == "store" and (self.server.folder / parts[-1]).is_file():
            self._file(parts[-1], whole, False)
        else:
            code = "EntryNotFound" if parts[:2] == ["some", "model"] else "RepoNotFound"
            self._send(404, {"X-Error-Code": code}, b"", whole)

    def _tell(self, rest: list[str], whole: bool) -> None:
        files = sorted(file.name for file in self.server.folder.iterdir())
        if rest[:1] == ["revision"] and rest[1:] not in ([COMMIT], ["main"]):
            self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"", whole)
        elif rest[:1] == ["tree"]:
            sizes = [(name, (self.server.folder / name).stat().st_size) for name in files]
            listed = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes]
            self._send(200, {"Content-Type": "application/json"}, json.dumps(listed).encode(), whole)
        else:
            told = {"id": "some/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            self._send(200, {"Content-Type": "application/json"}, json.dumps(told).encode(), whole)

    def _file(self, name: str, whole: bool, elsewhere: bool) -> None:
        content = (self.server.folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Content-Type": "application/octet-stream"}
        if elsewhere:
            headers |= {"Location": f"{self.server.url}/store/{name}", "X-Linked-ETag": f'"{digest}"'}
            self._send(302, {**headers, "X-Linked-Size": str(len(content))}, b"", whole)
        else:
            self._send(200, headers, content, whole)

    def _send(self, status: int, headers: dict[str, str], body: bytes, whole: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if whole:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


class _Server(ThreadingHTTPServer):
    """Attributes:
    folder: what it serves.
    asked: (method, path, authorization) of every request.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Hub)
        self.folder = folder
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        """What `HF_ENDPOINT` is set to."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub_of(folder: Path) -> Iterator[_Server]:
    """The hub, while the caller is inside."""
    server = _Server(folder)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
