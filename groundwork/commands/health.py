"""`groundwork doctor` where no server is installed: is there one, is it well, does the key open it."""

from __future__ import annotations

import email.utils
import time

import httpx2

from groundwork import version
from groundwork.commands.command import Terminal
from groundwork.commands.failures import Failure
from groundwork.commands.places import Place, find
from groundwork.commands.server import Server, no_answer
from groundwork.doctor import SKEW_SECONDS, Finding

TIMEOUT = 10.0


def examine(terminal: Terminal) -> list[Finding]:
    """This machine's software, the server, each part it leans on, the clocks, and the key."""
    software = Finding("software", "ok", "; ".join(version.describe().splitlines()))
    try:
        place = find(terminal.url, terminal.key)
    except Failure as failure:
        return [software, Finding("settings", "fail", failure.message, failure.advice)]
    try:
        reply = httpx2.get(f"{place.url}/readyz", timeout=TIMEOUT)
        parts = reply.json()["parts"]
    except (httpx2.TransportError, ValueError, KeyError, TypeError) as error:
        lost = no_answer(place, error)
        return [software, Finding("server", "fail", lost.message, lost.advice)]
    found = [software, Finding("server", "ok", f"{place.url} (told by {place.told_by})")]
    for name, told in parts.items():
        bad = told["status"] != "ok"
        advice = "on the server's machine `groundwork doctor` tells more" if bad else ""
        status = {"ok": "ok", "degraded": "warn"}.get(told["status"], "fail")
        detail = told["detail"] or f"answers in {told['milliseconds']:.0f} ms"
        found.append(Finding(name, status, detail, advice))  # type: ignore[arg-type]  # one of the three
    return [*found, _clock(reply.headers.get("date")), _key(place)]


def _clock(date: str | None) -> Finding:
    if date is None:
        return Finding("clock", "ok", "the server tells no time")
    skew = abs(time.time() - email.utils.parsedate_to_datetime(date).timestamp())
    if skew > SKEW_SECONDS:
        return Finding("clock", "warn", f"{skew:.0f} s away from the server's", "let both machines keep time (NTP)")
    return Finding("clock", "ok", "like the server's")


def _key(place: Place) -> Finding:
    try:
        server = Server(place, timeout=TIMEOUT)
        project = server.get("/projects", limit=1, order="asc")["data"][0]  # a root key sees others after its own
        server.close()
    except Failure as failure:
        return Finding("key", "fail", failure.message, failure.advice)
    return Finding("key", "ok", f"opens project {project['name']} (told by {place.key_told_by})")
