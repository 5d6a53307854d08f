"""Runs the blocks of a page, one after the other, in a folder and against a server: for the test, and for `renew`.

Shell blocks share their variables, Python blocks their names; both are in one folder and find the server by
`GROUNDWORK_URL` and `GROUNDWORK_API_KEY`, curl by `$GW` and `$KEY`. What a page cannot know is put in: the ids that its
printed output shows stand for those that its commands really made, and `ds_…` is the dataset made last.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docs._generate.blocks import Block

ID = re.compile(r"\b(?:ds|mdl|job|key|upload|whk|evt|proj|imp)_[0-9a-z]{4,40}\b")
KEY = re.compile(r"\bgw_\w{12,}")
_BLANK = re.compile(r"\b(ds|job|mdl)_…")
_BUDGETS = (
    (re.compile(r'"minutes": *[\d.]+'), '"steps": 3'),
    (re.compile(r'"minutes=[\d.]+'), '"steps=3'),
    (re.compile(r"--(minutes|steps|epochs) +[\d.]+"), "--steps 3"),
    (re.compile(r'"(steps)": *\d{2,}'), r'"\1": 3'),
)
_DIARY = re.compile(r"\d\d:\d\d:\d\d  (?!Stage|The job)")
ROOT = Path(__file__).parents[2]
SECONDS = 3600


class Failed(Exception):
    """A block did not do what its page says; the text names it and shows what came."""


@dataclass
class Server:
    """A running `groundwork serve`.

    Attributes:
        url: without `/v1`.
        key: an API key with every scope.
        data: its data folder.
        printed: what it said when it started.
        receiver: a port of this machine that it may send webhooks to; pages call it 9000.
    """

    url: str
    key: str
    data: Path
    printed: str
    receiver: int = 9000


@dataclass
class Runner:
    """The state of one page.

    Attributes:
        server: that the blocks talk to.
        folder: that they run in.
        short: whether budgets are cut to a few steps.
        known: an id that the page shows -> the one it stands for here.
        given: kind of id -> the one that `ds_…` or `mdl_…` is, where the page takes something as there.
        alone: whether the page makes itself known to the server: the clients' variables are not set then.
    """

    server: Server
    folder: Path
    short: bool = True
    known: dict[str, str] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    alone: bool = False
    _told: dict[str, str] = field(default_factory=dict)
    _names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})

    def environment(self) -> dict[str, str]:
        """Of every block."""
        url, key, home = self.server.url, self.server.key, self.folder / ".home"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GROUNDWORK_")}
        kept.pop("XDG_CONFIG_HOME", None)
        told = {} if self.alone else {"GROUNDWORK_URL": url, "GROUNDWORK_API_KEY": key}
        short = {"GW": f"{url}/v1", "KEY": key}
        own = {"HOME": str(home), "COLUMNS": "110", "TERM": "dumb", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
        return {**kept, **told, **short, **own, "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"}

    def run(self, block: Block) -> str:
        """What a block printed. Raises Failed."""
        if block.server:
            self.alone = True
            return self.server.printed
        code = self._filled_in(self._cut(block.code))
        if block.language == "python":
            return self._python(block, code)
        if _BLANK.search(code):
            return "".join(self._one(block, command) for command in commands(code))
        return self._shell(block, code)

    def compare(self, block: Block, shown: Block, came: str) -> None:
        """Note which ids the shown output stands for. Raises Failed where it is another output."""
        came = self.presented(came)
        missing = missing_lines(shown.code.partition("\n")[0] if shown.differs else shown.code, came)
        if missing:
            raise Failed(f"{shown}: after {block}\nno such line came:\n  {missing[0]}\nwhat came:\n{came[-3000:]}")
        self.note_ids(shown.code, came)

    def note_ids(self, shown: str, came: str) -> None:
        """Ids of both outputs in the order in which they first appear belong together, kind by kind."""
        for kind in ("ds", "mdl", "job", "key", "whk"):
            theirs, ours = (_ids(text, kind) for text in (shown, came))
            fresh = [one for one in ours if one not in self.known.values()]
            self.known |= dict(zip([one for one in theirs if one not in self.known], fresh, strict=False))

    def presented(self, came: str) -> str:
        """Output as a page shows it: no secret, and no place of this run alone."""
        places = {str(self.server.data): "data", str(self.folder / ".home"): "~", f"{self.folder}/": ""}
        for ours, theirs in {**places, self.server.url: "http://127.0.0.1:8420"}.items():
            came = came.replace(ours, theirs)
        return KEY.sub("gw_…", came)

    def with_known(self, code: str) -> str:
        """A block with the ids that were really made."""
        return ID.sub(lambda found: self.known.get(found.group(), found.group()), code)

    def _cut(self, code: str) -> str:
        if not self.short or "--dry-run" in code:
            return code
        for pattern, instead in _BUDGETS:
            code = pattern.sub(instead, code)
        return code

    def _filled_in(self, code: str) -> str:
        code = self.with_known(code)
        places = {
            "http://127.0.0.1:8420": self.server.url, "gw_…": self.server.key,
            "/var/lib/groundwork": str(self.server.data), "/srv/groundwork": str(self.folder / "restored"),
            "/backups/": f"{self.folder}/backups/",
        }  # fmt: skip
        for theirs, ours in places.items():
            code = code.replace(theirs, ours)
        return re.sub(r"\b9000\b", str(self.server.receiver), code)

    def _one(self, block: Block, command: str) -> str:
        """A command of several; a person looks before the next one whether the job has ended."""
        if "job_…" not in command:
            self._ended()
        return self._shell(block, self._newest(command))

    def _ended(self) -> Any:
        jobs = self._get("/jobs?limit=1")["data"]
        while jobs and jobs[0]["status"] in ("queued", "running"):
            time.sleep(0.3)
            jobs = [self._get(f"/jobs/{jobs[0]['id']}")]
        return jobs[0] if jobs else None

    def _newest(self, command: str) -> str:
        """A command with `ds_…` and the like replaced by what was made last, once that is ready."""

        def meant(found: re.Match[str]) -> str:
            kind = found.group(1)
            newest: dict[str, Callable[[], str]] = {
                "ds": self._newest_ds, "job": self._newest_job, "mdl": self._newest_mdl
            }  # fmt: skip
            return self.given[kind] if kind in self.given else newest[kind]()

        return _BLANK.sub(meant, command)

    def _newest_ds(self) -> str:
        made = self._get("/datasets?limit=1")["data"][0]
        while made["status"] in ("uploaded", "ingesting"):
            time.sleep(0.3)
            made = self._get(f"/datasets/{made['id']}")
        return str(made["id"])

    def _newest_job(self) -> str:
        return str(self._get("/jobs?limit=1")["data"][0]["id"])

    def _newest_mdl(self) -> str:
        return str(self._ended()["result"]["model"])

    def _get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.server.key}"}
        asked = urllib.request.Request(f"{self.server.url}/v1{path}", headers=headers)
        with urllib.request.urlopen(asked, timeout=30) as reply:
            return json.load(reply)

    def _shell(self, block: Block, code: str) -> str:
        state = self.folder / ".shell"
        script = f"set -aeo pipefail\n{code}\nenv -0 > {shlex.quote(str(state))}"
        call, environment = ["bash", "-c", script], self.environment() | self._told
        done = subprocess.run(call, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=SECONDS)
        if block.fails and done.returncode:
            return done.stdout + done.stderr
        if block.fails or done.returncode:
            said = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            raise Failed(f"{block}: exit status {done.returncode}\n{code}\n{said}")
        kept = (pair.partition("=") for pair in state.read_text().split("\0") if pair)
        self._told = {name: value for name, _, value in kept if name not in ("PWD", "OLDPWD", "SHLVL", "_")}
        return done.stdout

    def _python(self, block: Block, code: str) -> str:
        said, before = io.StringIO(), dict(os.environ)
        # What a page in Python tells of a server, its comments say: there is no command that would leave word of it.
        server = {"GROUNDWORK_URL": self.server.url, "GROUNDWORK_API_KEY": self.server.key}
        os.environ.update(self.environment() | server | self._told)
        try:
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(said):
                exec(compile(code, str(block), "exec", dont_inherit=True), self._names)
        except Exception as error:
            raise Failed(f"{block}: {type(error).__name__}: {error}\n{code}\n{said.getvalue()[-2000:]}") from error
        finally:
            os.environ.clear()
            os.environ.update(before)
        return said.getvalue()


def commands(code: str) -> list[str]:
    """The commands of a block of single commands: a line, with those that continue it."""
    joined = re.sub(r"\\\n\s*", " ", code)
    return [line for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]


def missing_lines(shown: str, came: str) -> list[str]:
    """Lines of the shown output that did not come in that order; figures, ids and the width of columns may differ."""
    # A longer run tells its progress, in percents, and what happens meanwhile, more often than the few steps of a test.
    wanted = [_loose(line) for line in shown.splitlines() if "%" not in line and not _DIARY.match(line)]
    wanted = [line for line in wanted if line and line != "…"]
    rest = iter([_loose(line) for line in came.splitlines()])
    return [line for line in wanted if not any(_fits(line, each) for each in rest)]


def _fits(wanted: str, came: str) -> bool:
    if "…" not in wanted:
        return wanted == came
    return re.fullmatch(".*".join(map(re.escape, wanted.split("…"))), came) is not None


def _loose(line: str) -> str:
    line = re.sub(r"\b[0-9a-f]{64}\b", "DIGEST", ID.sub("ID", line))
    line = re.sub(r"[─━═╌▁▂▃▄▅▆▇█▏▎▍▌▋▊▉⠀-⣿]+", "", line)
    line = re.sub(r"\d[\d,.:]*(e[+-]?\d+)?( ?(kB|KB|MB|GB|KiB|MiB|GiB|bytes|B|k|M|s|ms|min|h)\b)?", "#", line)
    line = " ".join(re.sub(r"[+-]#", "#", line).split())
    return re.sub(r"#( #)+", "#", line)


def _ids(text: str, kind: str) -> list[str]:
    return list(dict.fromkeys(one for one in ID.findall(text) if one.startswith(f"{kind}_")))
