"""All roles as real processes: an API, an inference role, a worker with the real engine, and a model to ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai

from app.auth.service import create_key
from app.models.service import StoredFile
from app.platform import Platform, session_scope
from tests.app import registered
from tests.app.conftest import ROOT, SECRETS, fill, make_settings, start_server
from tests.app.jobs_world import Worker
from tests.inference_role import free_url, start_role, stop_role
from tests.model_folders import language_model, text_model
from tests.services import die_with_parent

ENDED = {"completed", "failed", "expired", "cancelled"}


@dataclass
class Served:
    """The processes, and what the first of two projects has."""

    url: str
    key: str
    stranger_key: str
    platform: Platform
    project_id: str
    folder: Path
    models: dict[str, str]
    """Ids by name: text, topics, writes."""
    door: Worker
    """A stand-in worker, for jobs of the queue `gpu`."""
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    opened: list[openai.OpenAI] = field(default_factory=list)

    def openai(self, key: str | None = None, url: str | None = None, **options: Any) -> openai.OpenAI:
        """The official client; no retries unless asked for."""
        made = openai.OpenAI(
            base_url=f"{url or self.url}/v1", api_key=key or self.key, **{"max_retries": 0, **options}
        )
        self.opened.append(made)
        return made

    def scoped(self, *scopes: str) -> str:
        """A key of the first project with these scopes only."""
        with session_scope(self.platform) as session:
            return create_key(session, self.platform.settings, self.project_id, "scoped", scopes)[1]

    def start_worker(self, name: str = "worker") -> subprocess.Popen[bytes]:
        """A worker that polls, with the real engine."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        given = {
            "data_dir": folder, "api_url": self.url, "worker_token": SECRETS["worker_token"], "broker_url": "",
            "poll_seconds": 0.25, "short_slots": 0, "engine_threads": 1,
        }  # fmt: skip
        env = os.environ | {f"GROUNDWORK_{key.upper()}": str(value) for key, value in given.items()}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker.main"],
                env=env, cwd=ROOT, stdout=log, stderr=log, preexec_fn=die_with_parent,
            )  # fmt: skip
        self.started.append(process)
        return process

    def ended(self, batch_id: str, seconds: float = 200) -> Any:
        """The batch, once it has ended."""
        return waited(lambda: self.openai().batches.retrieve(batch_id), ENDED, seconds)


def _model(platform: Platform, project: str, folder: Path, name: str) -> str:
    """With the manifest that a run leaves, which the engine looks for."""
    files = registered.stored_folder(platform, folder, f"jobs/{name}/1/artifact")
    stored = platform.store.put(f"jobs/{name}/1/artifact/manifest.json", (folder / "manifest.json").read_bytes())
    manifest = StoredFile(path="manifest.json", size=stored.size, sha256=stored.sha256, key=stored.key)
    return registered.model(platform, project, folder, name, files=[*files, manifest])


def waited(look: Any, statuses: set[str], seconds: float = 200) -> Any:
    """What `look` finds once its status is one of these."""
    until = time.monotonic() + seconds
    while (found := look()).status not in statuses:
        assert time.monotonic() < until, f"still {found.status} after {seconds:g} s: {found}"
        time.sleep(0.2)
    return found


def start_served(
    template: Path, folder: Path, worker: bool = True, role: bool = True, **changes: Any
) -> Iterator[Served]:
    """An API, and the other roles where they are asked for, until the caller is done. `changes`: settings."""
    shutil.copy(template, folder / "groundwork.db")
    inference_url = free_url()
    times = {"lease_seconds": 60, "heartbeat_seconds": 2, "backoff_seconds": 0.1}
    url = f"sqlite:///{folder / 'groundwork.db'}"
    settings = make_settings(url, folder, inference_url=inference_url, **(times | changes))
    platform = Platform.open(settings)
    project, key, _, stranger = fill(platform)
    folders = {
        "text": text_model(folder / "text"),
        "topics": text_model(folder / "topics", task=True, seed=1),
        "writes": language_model(folder / "writes", "next_token"),
    }
    models = {name: _model(platform, project, made, name) for name, made in folders.items()}
    api, url = start_server(settings, folder / "api.log")
    serving = start_role(url, inference_url, folder) if role else None
    with httpx2.Client(base_url=url, timeout=30) as plain:
        made = Served(url, key, stranger, platform, project, folder, models, Worker(plain))  # type: ignore[arg-type]
        if worker:
            made.start_worker()
        yield made
        for client in made.opened:
            client.close()
    if serving is not None:
        stop_role(serving)
    for process in [*made.started, api]:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=40)
    platform.close()
