"""The command line as a user has it: real processes before a real server, a settings folder of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.app.conftest import make_settings
from tests.clients.conftest import World, start_world
from tests.groundwork.serving import CLI, ROOT, clean_environment

SECONDS = 600


@dataclass
class Shell:
    """Runs `groundwork …` in a folder, told of a server by the environment."""

    folder: Path
    url: str | None = None
    key: str | None = None

    def environment(self, **more: str) -> dict[str, str]:
        """Nobody's settings but these."""
        known = {"GROUNDWORK_URL": self.url, "GROUNDWORK_API_KEY": self.key}
        told = {name: value for name, value in known.items() if value is not None}
        folder = {"XDG_CONFIG_HOME": str(self.folder / "config"), "PYTHONPATH": str(ROOT), "HOME": str(self.folder)}
        return clean_environment() | folder | told | more

    def run(self, *arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """One command to its end, whatever that is."""
        return subprocess.run(
            [*CLI, *arguments], env=self.environment(**more), cwd=self.folder, capture_output=True, text=True,
            timeout=SECONDS, input=stdin,
        )  # fmt: skip

    def says(self, *arguments: str, stdin: str = "") -> str:
        """The words of a command that does its work."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """The document of one, which must be all that there is on standard output."""
        return json.loads(self.says(*arguments, "--json"))

    def refuses(self, *arguments: str, status: int = 1, stdin: str = "") -> str:
        """The one line of one that cannot do it."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert done.stdout == ""
        assert done.stderr.startswith("groundwork: ") and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """One that goes on while the test does something."""
        return subprocess.Popen(
            [*CLI, *arguments], env=self.environment(PYTHONUNBUFFERED="1"), cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


@dataclass
class Desk:
    """A server with a worker at its other door, and a shell before it."""

    world: World
    shell: Shell

    def job(self, **more: str) -> str:
        """The id of a new pretraining job."""
        flags = [part for name, value in more.items() for part in (f"--{name}", value)]
        made = self.shell.json("pretrain", self.world.dataset(), "--objective", "mlm", *flags)
        return str(made["id"])


@pytest.fixture(scope="module")
def desk(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One for all tests of a module."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(sqlite_template, folder / "groundwork.db")
    for world in start_world(make_settings("", folder)):
        yield Desk(world, Shell(folder, world.live.url, world.live.key))


def read_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """Lines of a running command up to the first with these words."""
    assert process.stdout is not None
    lines: list[str] = []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        line = process.stdout.readline()
        assert line or process.poll() is None, "".join(lines)
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"no {words!r} in {lines}")


def in_terminal(shell: Shell, *arguments: str, columns: int = 110, rows: int = 40) -> tuple[int, str]:
    """A command in a terminal of its own: its status, and all that it wrote there."""
    import fcntl
    import pty
    import struct
    import termios

    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment, screen = shell.environment(TERM="xterm-256color"), {"stdin": side, "stdout": side, "stderr": side}
    process = subprocess.Popen([*CLI, *arguments], env=environment, cwd=shell.folder, **screen)
    os.close(side)
    written = b""
    try:
        while piece := os.read(main, 65_536):
            written += piece
    except OSError:  # the other side is closed
        pass
    os.close(main)
    return process.wait(SECONDS), written.decode("utf-8", "replace")
