"""How a job looks: in a list, and as a sheet."""

from __future__ import annotations

from typing import Any

from groundwork.commands import draw

Json = dict[str, Any]
COLUMNS = ("id", "type", "status", "progress", "what", "took>", "created")


def table(jobs: list[Json], empty: str = "no jobs; `groundwork jobs submit` starts one") -> Any:
    """A line for each."""
    lines = (
        (job["id"], job["type"], job["status"], _progress(job), what(job), took(job), draw.when(job["created_at"]))
        for job in jobs
    )
    return draw.table(COLUMNS, lines, empty)


def sheet(job: Json) -> Any:
    """What there is to know of one."""
    error = job["error"] or {}
    facts = {
        "id": job["id"], "type": job["type"], "status": job["status"], "what": what(job), "progress": _progress(job),
        "created": draw.when(job["created_at"]), "took": took(job) if job["started_at"] else None,
        "attempts": _attempts(job), "metadata": job["metadata"], **_result(job),
        "error": f"{error['code']}: {error['message']}{_at(error)}" if error else None,
    }  # fmt: skip
    return draw.facts(facts)


def result(job: Json) -> Any:
    """What came out of one that has succeeded."""
    return draw.facts(_result(job))


def what(job: Json) -> str:
    """Objective or task, backbone and data in one phrase."""
    spec = job["resolved_spec"] or job["spec"]
    named = (spec.get(part) for part in ("objective", "task"))
    words = [part["name"] for part in named if isinstance(part, dict)]
    backbone = spec.get("backbone")
    words += [backbone["name"]] if isinstance(backbone, dict) and backbone.get("name") else []
    words += [spec["format"]] if spec.get("format") else []
    start = spec.get("model")
    words += [start] if start and not words else []
    return ", ".join(words) or spec.get("filename") or draw.MISSING


def took(job: Json) -> str:
    """From its start to its end or now."""
    return draw.between(job["started_at"], job["finished_at"])


def rate(progress: Json) -> str:
    """How fast it goes and how long it will take, as far as that is known."""
    words = []
    if progress.get("examples_per_second"):
        words.append(f"{draw.number(progress['examples_per_second'])} examples/s")
    if progress.get("eta_seconds") is not None:
        words.append(f"{draw.duration(progress['eta_seconds'])} left")
    return ", ".join(words)


def _progress(job: Json) -> str:
    progress = job["progress"]
    if not progress or job["status"] in ("queued",):
        return draw.MISSING
    percent = f"{progress['percent']:.0f} %"
    return percent if job["finished_at"] else f"{percent} {progress['stage'] or ''}".strip()


def _result(job: Json) -> Json:
    found = job["result"] or {}
    made = {name: found[name] for name in ("model", "dataset") if found.get(name)}
    return made | draw.metrics(found.get("metrics") or {})


def _attempts(job: Json) -> str | None:
    tries = job.get("attempts") or []
    if len(tries) < 2:
        return None
    return "; ".join(f"{each['attempt']}: {each['outcome'] or 'running'}" for each in tries)


def _at(error: Json) -> str:
    return f" ({error['param']})" if error.get("param") else ""
