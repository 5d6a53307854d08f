"""`groundwork jobs watch`: a job live. A picture that moves in a terminal, lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from groundwork.commands import draw, job_views
from groundwork.commands.command import Json, Terminal, command
from groundwork.commands.completion import job_argument
from groundwork.commands.failures import INTERRUPTED, REFUSED, Failure

if TYPE_CHECKING:
    from groundwork.commands.server import Server

LOSS = "train/loss"
CURVE_POINTS = 400
LAST_EVENTS, LAST_WARNINGS = 6, 2
LINE_PERCENT, LINE_SECONDS = 5.0, 15.0
"""Lines: progress is told again after so much of it, or after so long."""


def attach(group: typer.Typer) -> None:
    """`watch` under `jobs`."""

    @command(group, "watch")
    def watch(terminal: Terminal, job: Annotated[str, job_argument()]) -> int:
        """Follow a job until it has ended. Ctrl-C stops watching, never the job."""
        return follow(terminal, job)


def follow(terminal: Terminal, job: str, result: bool = True) -> int:
    """Show a job live; 0 once it has succeeded. `result`: print what came out of it.

    Raises:
        Failure: status 1, it failed or was cancelled; or the server cannot be reached.
    """
    server = terminal.server
    view = _view(terminal, server.get(f"/jobs/{job}"))
    try:
        with view:
            view.curve(_losses(server, job))
            for name, content in server.follow(job):
                view.take(name, content | _filled(content) if name == "progress" else content)
            ended = server.look(f"/jobs/{job}")
            view.curve(_losses(server, job))  # the stream leaves points out where they come fast
            view.end(ended)
    except KeyboardInterrupt:
        stop = f"`groundwork jobs watch {job}` follows it again, `groundwork jobs cancel {job}` ends it"
        print(f"groundwork: stopped watching; {job} goes on — {stop}", file=sys.stderr)
        return INTERRUPTED
    if ended["status"] != "succeeded":
        raise failure(ended)
    if result and not terminal.as_json:
        draw.show(job_views.result(ended) if terminal.lively else job_views.sheet(ended))
    return 0


def failure(job: Json) -> Failure:
    """The one line about a job that came to nothing."""
    if job["status"] == "cancelled":
        return Failure(f"{job['type']} job {job['id']} was cancelled", "submit it again to start over", REFUSED)
    error = job["error"] or {"code": "unknown", "message": "no reason was told"}
    at = f" ({error['param']})" if error.get("param") else ""
    advice = f"`groundwork jobs events {job['id']}` and `groundwork jobs logs {job['id']}` tell more"
    return Failure(f"{job['type']} job {job['id']} failed: {error['message']}{at}", advice, REFUSED)


def _losses(server: Server, job: str) -> list[Json]:
    series: list[Json] = server.look(f"/jobs/{job}/metrics", series=LOSS, points=CURVE_POINTS)["series"]
    return series


class View(Protocol):
    """What shows a job."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *error: object) -> None: ...

    def curve(self, series: list[Json]) -> None:
        """What was measured up to now."""

    def take(self, name: str, content: Json) -> None:
        """One event of the stream."""

    def end(self, job: Json) -> None:
        """The job as it ended."""


def _view(terminal: Terminal, job: Json) -> View:
    if terminal.as_json:
        return Documents(terminal)
    return Picture(job) if terminal.lively else Lines()


@dataclass
class Documents:
    """JSON lines: `{"event": "job.event" | "progress" | "done", …}`, the job itself last, as `{"event": "job", …}`."""

    terminal: Terminal

    def __enter__(self) -> Documents:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def curve(self, series: list[Json]) -> None:
        """Nothing: `jobs metrics` tells it."""

    def take(self, name: str, content: Json) -> None:
        """One line."""
        self.terminal.line({"event": name, "data": content})

    def end(self, job: Json) -> None:
        """The last line."""
        self.terminal.line({"event": "job", "data": job})


@dataclass
class Lines:
    """For a log: each event, and progress now and then."""

    told_percent: float = -100.0
    told_at: float = 0.0
    told_stage: str = ""
    told_place: tuple[int, int | None] = (0, None)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def curve(self, series: list[Json]) -> None:
        """Nothing: a log has no room for it."""

    def take(self, name: str, content: Json) -> None:
        """One line, or none."""
        if name == "job.event":
            level = "" if content["level"] == "info" else f"{content['level']}: "
            self._say(f"{level}{content['message']}", content["created_at"])
        elif name == "progress":
            self._progress(content["progress"], content["metrics"])

    def end(self, job: Json) -> None:
        """The sheet that follows says it all."""

    def _progress(self, progress: Json, metrics: Json) -> None:
        percent, stage, now = progress["percent"], progress["stage"] or "", time.monotonic()
        soon = abs(percent - self.told_percent) < LINE_PERCENT and now - self.told_at < LINE_SECONDS
        place = progress["step"], progress["total_steps"]
        if not steps(progress) or place == self.told_place or (soon and stage == self.told_stage and percent < 100):
            return  # that a stage begins is an event of its own
        self.told_percent, self.told_at, self.told_stage, self.told_place = percent, now, stage, place
        loss = f"loss {draw.number(float(metrics[LOSS]))}" if LOSS in metrics else ""
        words = (f"{stage} {steps(progress)}", loss, job_views.rate(progress))
        self._say(", ".join(filter(None, words)), None)

    @staticmethod
    def _say(words: str, seconds: float | None) -> None:
        print(f"{draw.clock(seconds)}  {draw.clean(words)}", flush=True)


@dataclass
class Picture:
    """In a terminal: stage, bar, speed, the curve of the loss, the last events; drawn again four times a second."""

    job: Json
    progress: Json = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    events: deque[Json] = field(default_factory=lambda: deque(maxlen=LAST_EVENTS))
    warnings: deque[Json] = field(default_factory=lambda: deque(maxlen=LAST_WARNINGS))
    seen_at: float = 0.0
    live: Any = None

    def __enter__(self) -> Picture:
        from rich.live import Live

        self.progress, self.seen_at = self.job["progress"] or {}, time.monotonic()
        self.live = Live(console=draw.console(), get_renderable=self._drawn, refresh_per_second=4)
        self.live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.__exit__(None, None, None)

    def curve(self, series: list[Json]) -> None:
        """The curve so far."""
        for each in series:
            self.losses |= dict(zip(each["steps"], map(float, each["values"]), strict=True))

    def take(self, name: str, content: Json) -> None:
        """Remember it until the next drawing."""
        if name == "job.event":
            (self.events if content["level"] == "info" else self.warnings).append(content)
            if content["type"] == "state":
                self.job = {**self.job, "status": content["data"].get("to", self.job["status"])}
        elif name == "progress":
            self.progress, self.seen_at = content["progress"], time.monotonic()
            self.job = {**self.job, "status": content["status"]}
            if LOSS in content["metrics"]:
                self.losses[self.progress["step"]] = float(content["metrics"][LOSS])

    def end(self, job: Json) -> None:
        """The last drawing shows where it ended."""
        self.job, self.progress = job, job["progress"] or {}

    def _drawn(self) -> Any:
        from rich.console import Group

        job = self.job
        rows: Json = {f"{job['type']} job": f"{job['id']}   {job_views.what(job)}", "status": job["status"]}
        if self.progress:
            done = self.progress["percent"] / 100
            rows[self.progress["stage"] or "progress"] = f"{draw.bar(done)} {steps(self.progress)}"
            rows["speed"] = job_views.rate(self._aged()) if job["status"] == "running" else None
        if self.losses:
            curve = [self.losses[step] for step in sorted(self.losses)]
            rows["loss"] = f"{draw.sparkline(curve)} {draw.number(curve[0])} → {draw.number(curve[-1])}"
        told = sorted([*self.warnings, *self.events], key=lambda event: str(event["id"]))
        return Group(draw.facts(rows), draw.plain(""), *map(_event_line, told), draw.plain(""))

    def _aged(self) -> Json:
        left = self.progress.get("eta_seconds")
        passed = time.monotonic() - self.seen_at
        return self.progress if left is None else {**self.progress, "eta_seconds": max(0.0, left - passed)}


def _filled(content: Json) -> Json:
    return {"progress": {"stage": None, "step": 0, "total_steps": None, "percent": 0.0} | content["progress"]}


def steps(progress: Json) -> str:
    """How far: 320 / 2,000, 16 %."""
    if not progress.get("total_steps"):
        return f"{progress['percent']:.0f} %" if progress["percent"] else ""
    return f"{progress['step']:,} / {progress['total_steps']:,}, {progress['percent']:.0f} %"


def _event_line(event: Json) -> Any:
    style = {"warning": "yellow", "error": "red"}.get(event["level"], "bright_black")
    line = draw.plain(f"{draw.clock(event['created_at'])}  {draw.clip(event['message'], 100)}")
    line.stylize(style)
    return line
