"""A stand-in for the API's door of models (docs/contracts.md §6): serves model folders, counts and may fail."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.inference_role import TOKEN


class ModelDoor:
    """`folders` by model id; `asked` holds every path that was fetched; `corrupt` paths get a wrong byte.
    `gates`: what answers about a model wait for."""

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}
        self.asked: list[str] = []
        self.corrupt: set[str] = set()
        self.delay = 0.0
        self.gates: dict[str, threading.Event] = {}
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body = door.answer(self.path, self.headers.get("authorization", ""))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path: str, authorization: str) -> tuple[int, bytes]:
        self.asked.append(path)
        model_id, _, file = path.removeprefix("/internal/v1/models/").partition("/files/")
        time.sleep(self.delay)
        if model_id in self.gates:
            self.gates[model_id].wait(60)
        if authorization != f"Bearer {TOKEN}":
            return 401, b"{}"
        folder = self.folders.get(model_id)
        if folder is None:
            return 404, b"{}"
        if not file:
            return 200, json.dumps(self.listing(model_id)).encode()
        content = (folder / file).read_bytes()
        return 200, content[:-1] + b"\0" if file in self.corrupt else content

    def listing(self, model_id: str) -> dict[str, Any]:
        folder = self.folders[model_id]
        files = [
            {
                "path": path.relative_to(folder).as_posix(),
                "size": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "url": f"/internal/v1/models/{model_id}/files/{path.relative_to(folder).as_posix()}",
            }
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "manifest.json"
        ]
        text = "".join(f"{file['path']}\0{file['sha256']}\n" for file in files)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return {"id": model_id, "digest": digest, "config": {}, "files": files}

    def digest(self, model_id: str) -> str:
        """The digest that the API knows this model by."""
        return str(self.listing(model_id)["digest"])
