"""An API and an inference role as two real processes, with models and datasets of two projects."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import pytest

from app.platform import Platform
from tests.app import registered
from tests.app.conftest import fill, make_settings, start_server
from tests.inference_role import free_url, start_role, stop_role
from tests.model_folders import image_model, language_model, sound_model, text_model
from tests.ssl_core import datasets


@dataclass
class Serving:
    """The two processes, keys of two projects, and what the first project has."""

    url: str
    key: str
    other_key: str
    client: httpx2.Client
    platform: Platform
    project_id: str
    role: subprocess.Popen[bytes]
    inference_url: str
    folder: Path
    models: dict[str, str]
    """Ids by name: text, topics, fills, writes, image, digits, sound, notes, foreign."""
    folders: dict[str, Path]
    datasets: dict[str, str]
    """Ids by name: text, image, pending, foreign."""
    dataset_folders: dict[str, Path]

    @property
    def openai(self) -> openai.OpenAI:
        """The official client."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)

    def refused(self, path: str, **body: object) -> tuple[int, str, str | None]:
        """Status, code and param of an error."""
        reply = self.client.post(path, json=body)
        error = reply.json()["error"]
        return reply.status_code, error["code"], error["param"]


def start_serving(template: Path, folder: Path) -> Iterator[Serving]:
    """Everything, until the caller is done."""
    shutil.copy(template, folder / "groundwork.db")
    inference_url = free_url()
    settings = make_settings(f"sqlite:///{folder / 'groundwork.db'}", folder, inference_url=inference_url)
    platform = Platform.open(settings)
    project, key, other, other_key = fill(platform)
    folders = {
        "text": text_model(folder / "text"),
        "topics": text_model(folder / "topics", task=True, seed=1),
        "fills": language_model(folder / "fills", "mlm"),
        "writes": language_model(folder / "writes", "next_token"),
        "image": image_model(folder / "image"),
        "digits": image_model(folder / "digits", task=True, seed=1),
        "sound": sound_model(folder / "sound"),
        "notes": sound_model(folder / "notes", task=True, seed=1),
    }
    models = {name: registered.model(platform, project, made) for name, made in folders.items()}
    models["foreign"] = registered.model(platform, other, folders["text"])
    rows = {
        "text": datasets.text_dataset(folder / "rows_text"),
        "image": datasets.image_dataset(folder / "rows_image"),
    }
    known = {name: registered.dataset(platform, project, made) for name, made in rows.items()}
    known["pending"] = registered.dataset(platform, project, rows["text"], status="uploaded")
    known["foreign"] = registered.dataset(platform, other, rows["text"])
    process, url = start_server(settings, folder / "api.log")
    role = start_role(url, inference_url, folder)
    client = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
    yield Serving(
        url, key, other_key, client, platform, project, role, inference_url, folder, models, folders, known, rows
    )  # fmt: skip
    client.close()
    platform.close()
    stop_role(role)
    process.terminate()
    process.wait(timeout=20)


@pytest.fixture(scope="module")
def serving(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One for all tests of a file."""
    yield from start_serving(sqlite_template, tmp_path_factory.mktemp("serving"))
