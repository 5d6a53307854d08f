"""One `groundwork serve` for all pages of a test process."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docs._generate.blocks import given
from docs._generate.running import Runner, Server
from groundwork import Client
from tests.docs.files import write
from tests.docs.pages import ROOT
from tests.groundwork.serving import Served


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The whole platform on embedded defaults."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outbound = {"outbound": "true", "outbound_networks": "127.0.0.0/8", "outbound_ports": str(port)}
    served = Served(tmp_path_factory.mktemp("docs") / "data", **outbound).ready()
    printed = served.printed()
    key = re.findall(r"\bgw_\w+", printed)[0]
    yield Server(served.state()["url"], key, served.folder, printed, port)
    served.stop()
    served.kill()


@pytest.fixture(scope="session")
def given_texts(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A dataset of texts, and a model pretrained on it for a few steps."""
    folder = tmp_path_factory.mktemp("given") / "files"
    write(folder, "pool.jsonl")
    with Client(server.url, server.key) as gw:
        pool = gw.datasets.upload(folder / "pool.jsonl").wait()
        spec = {"objective": {"name": "span_contrast"}, "budget": {"steps": 3}}
        job = gw.jobs.create(type="pretrain", dataset=pool.id, **spec).wait()
        return {"ds": pool.id, "mdl": job.model().id}


@pytest.fixture
def runner(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Runner]:
    """For a page, by its name: in a folder with the files that it speaks of; `data` in it is the server's folder."""

    def made(name: str) -> Runner:
        folder = tmp_path / "page"
        write(folder, (ROOT / name).read_text(encoding="utf-8"))
        (folder / ".home").mkdir()
        (folder / ".home" / ".curlrc").write_text("fail-with-body\nno-progress-meter\n")
        (folder / "data").symlink_to(server.data)
        wanted = given((ROOT / name).read_text(encoding="utf-8"))
        return Runner(server, folder, given=request.getfixturevalue(f"given_{wanted}") if wanted else {})

    return made
