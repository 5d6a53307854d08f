"""`groundwork doctor`: what this installation leans on, part by part, and what to do about what fails.

Runs beside a live platform or without one; changes nothing but a probe object that it deletes again.
"""

from __future__ import annotations

import json
import os
import platform as machine
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundwork import version
from groundwork.folder import Refusal
from groundwork.roles import api_settings, borrow_secrets

if TYPE_CHECKING:
    from app.settings import Settings

Status = Literal["ok", "warn", "fail"]
SKEW_SECONDS = 5.0
WAITING_SECONDS = 120
_DEVICE = (
    "import json, torch; gpu = torch.cuda.is_available(); "
    "print(json.dumps({'torch': torch.__version__, 'threads': torch.get_num_threads(), "
    "'gpus': [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())] if gpu else []}))"
)


@dataclass(frozen=True)
class Finding:
    """One part. `advice` is what to do about it, empty where it is well."""

    part: str
    status: Status
    detail: str
    advice: str = ""


def examine(data_dir: Path) -> list[Finding]:
    """Every part in turn; one that fails does not keep the others from being looked at."""
    os.environ["GROUNDWORK_DATA_DIR"] = str(data_dir)
    found = [_software()]
    borrow_secrets()
    try:
        settings = api_settings()
    except Refusal as refusal:
        advice = "set it in the environment, or give --data-dir of `groundwork serve`"
        return [*found, Finding("settings", "fail", str(refusal), advice), _device()]
    state = _state(data_dir)
    found.append(Finding("settings", "ok", f"data in {settings.data_dir.resolve()}"))
    found += [_guarded("secrets", lambda: _secrets(data_dir)), _guarded("sandbox", _sandbox)]
    found += [*_guarded_all("database", lambda: _database(settings))]
    found += [_guarded("store", lambda: _store(settings)), _guarded("broker", lambda: _broker(settings, state))]
    found.append(_guarded("api", lambda: _api(settings, state)))
    found.append(_guarded("inference", lambda: _inference(settings, state)))
    return [*found, _device(), _compiler()]


def report(findings: list[Finding], as_json: bool) -> int:
    """Print them; 0 unless one failed."""
    if as_json:
        print(json.dumps([asdict(each) for each in findings], indent=1))
    for each in [] if as_json else findings:
        print(f"{each.status:<5} {each.part:<10} {each.detail}")
        if each.advice:
            print(f"{'':<16} -> {each.advice}")
    return int(any(each.status == "fail" for each in findings))


def _guarded(part: str, look: Callable[[], Finding]) -> Finding:
    return next(iter(_guarded_all(part, lambda: iter([look()]))))


def _guarded_all(part: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except Exception as error:
        first = next(iter(str(getattr(error, "orig", None) or error).strip().splitlines()), "")
        yield Finding(part, "fail", f"{type(error).__name__}: {first[:200]}", _ADVICE.get(part, "see the logs"))


_ADVICE = {
    "database": "start the database, or correct GROUNDWORK_DATABASE_URL",
    "store": "correct GROUNDWORK_STORE_URL and its credentials (AWS_…), or make room on the disk",
}


def _state(data_dir: Path) -> dict[str, Any]:
    """What a running `groundwork serve` tells scripts; nothing where none runs."""
    try:
        told: dict[str, Any] = json.loads((data_dir / "serve.json").read_text())
    except (OSError, ValueError):
        return {}
    return told


def _software() -> Finding:
    return Finding("software", "ok", "; ".join(version.describe().splitlines()))


def _sandbox() -> Finding:
    """Of a worker that runs here."""
    from worker.launch import LEAST_ABI, landlock_abi

    abi, wanted = landlock_abi(), os.environ.get("GROUNDWORK_SANDBOX", "auto")
    if wanted == "off":
        return Finding("sandbox", "warn", "switched off", "leave GROUNDWORK_SANDBOX unset, if strangers' files come in")
    if abi >= LEAST_ABI:
        return Finding("sandbox", "ok", f"Landlock {abi}: runs see their own files{' and no network' * (abi >= 4)}")
    status: Status = "fail" if wanted == "required" else "warn"
    return Finding("sandbox", status, "this kernel has no Landlock", "use Linux 5.19 or newer with it switched on")


def _secrets(data_dir: Path) -> Finding:
    kept = data_dir / "secrets.json"
    if not kept.exists():
        return Finding("secrets", "ok", "from the environment")
    if kept.stat().st_mode & 0o077:
        return Finding("secrets", "warn", f"{kept} can be read by others", f"chmod 600 {kept}")
    return Finding("secrets", "ok", f"in {kept}, for its owner alone")


def _database(settings: Settings) -> Iterator[Finding]:
    from sqlalchemy import func, select

    from app.db import READS, make_engine, now_ms
    from app.jobs.tables import Job
    from app.migrate import head, serves, usable_revision

    engine = make_engine(settings.database)
    try:
        began = time.perf_counter()
        with engine.connect() as connection:
            connection = connection.execution_options(**READS)
            now = now_ms(connection)
            took = 1000 * (time.perf_counter() - began)
            current = usable_revision(connection)
            name = f"{engine.dialect.name} {'.'.join(map(str, engine.dialect.server_version_info or ()))}".strip()
            if not serves(current):
                have = "no schema" if current is None else f"schema {current}, this program has {head()}"
                yield Finding("database", "fail", f"{name}, {have}", "run `groundwork migrate`")
                return
            newer = "" if current == head() else f" (newer than this program's {head()}, which it still takes)"
            yield Finding("database", "ok", f"{name}, schema {current}{newer}, answers in {took:.0f} ms")
            yield _clock(now)
            waits = (Job.status == "queued", Job.available_at < now - 1000 * WAITING_SECONDS)
            rows = connection.execute(select(Job.queue, func.count()).where(*waits).group_by(Job.queue)).all()
    finally:
        engine.dispose()
    waiting = ", ".join(f"{count} in queue {queue}" for queue, count in rows)
    if waiting:
        advice = "start a worker for that queue (`groundwork worker` with GROUNDWORK_QUEUE), or wait for those that run"
        yield Finding("queue", "warn", f"jobs that wait for over {WAITING_SECONDS} s: {waiting}", advice)
    else:
        yield Finding("queue", "ok", "nothing waits for long")


def _clock(now: int) -> Finding:
    skew = abs(time.time() - now / 1000)
    if skew > SKEW_SECONDS:
        advice = "let both machines keep time (NTP); leases are safe, shown times and webhook signatures are not"
        return Finding("clock", "warn", f"{skew:.0f} s away from the database's", advice)
    return Finding("clock", "ok", f"within {max(0.1, skew):.1f} s of the database's")


def _store(settings: Settings) -> Finding:
    from app.storage import Store

    store, key, content = Store.open(settings.store), f"doctor/{secrets.token_hex(8)}", secrets.token_bytes(64)
    store.put(key, content)
    try:
        same = store.get(key) == content
    finally:
        store.delete(key)
    if not same:
        return Finding("store", "fail", "gave other bytes back than were put", "use another store")
    free = store.free_bytes()
    if free is not None and free < max(settings.min_free_bytes, 2**30):
        return Finding("store", "warn", f"{free / 2**30:.1f} GiB free", "make room: uploads and checkpoints need it")
    room = "" if free is None else f", {free / 2**30:.0f} GiB free"
    return Finding("store", "ok", f"writes, reads and deletes{room}")


def _broker(settings: Settings, state: dict[str, Any]) -> Finding:
    from app.health import ask_broker

    url = settings.broker_url or state.get("broker_url", "")
    if not url:
        return Finding("broker", "ok", "none configured: workers poll")
    try:
        ask_broker(url)
    except OSError as error:
        advice = "start it; until then jobs are found by polling, a little later"
        return Finding("broker", "warn", f"does not answer: {type(error).__name__}", advice)
    return Finding("broker", "ok", "answers")


def _api(settings: Settings, state: dict[str, Any]) -> Finding:
    import httpx2

    url = state.get("url") or os.environ.get("GROUNDWORK_API_URL") or f"http://{settings.host}:{settings.port}"
    try:
        reply = httpx2.get(f"{url}/readyz", timeout=5, trust_env=False)
        parts = reply.json()["parts"]
    except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
        advice = "start it: `groundwork serve`, or `groundwork api`; GROUNDWORK_API_URL says where it is"
        return Finding("api", "warn", f"no API at {url} ({type(error).__name__})", advice)
    bad = {name: told for name, told in parts.items() if told["status"] != "ok"}
    if bad:
        told = "; ".join(f"{name}: {each['detail'] or each['status']}" for name, each in bad.items())
        return Finding("api", "fail" if reply.status_code != 200 else "warn", f"{url} says {told}", "see its log")
    return Finding("api", "ok", f"ready at {url}")


def _inference(settings: Settings, state: dict[str, Any]) -> Finding:
    import httpx2

    url = state.get("inference_url") or settings.inference_url
    try:
        httpx2.get(f"{url}/healthz", timeout=5, trust_env=False).raise_for_status()
    except httpx2.HTTPError as error:
        advice = "start it (`groundwork inference`): embeddings and predictions answer 503 without it"
        return Finding("inference", "warn", f"none at {url} ({type(error).__name__})", advice)
    return Finding("inference", "ok", f"alive at {url}")


def _device() -> Finding:
    """In a process of its own: a broken driver may hang."""
    cores, where = os.cpu_count() or 1, machine.machine()
    command = [sys.executable, "-c", _DEVICE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Finding("device", "fail", "torch did not answer within 120 s", "look at the GPU's driver (nvidia-smi)")
    except (ValueError, IndexError):
        advice = "pip install 'groundwork[worker]' where jobs are to run; an API alone needs none"
        return Finding("device", "warn", f"{cores} cores ({where}), no torch here", advice)
    gpus = ", ".join(told["gpus"]) or "no GPU"
    return Finding("device", "ok", f"{cores} cores ({where}), {gpus}, torch {told['torch']}")


def _compiler() -> Finding:
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        return Finding("compiler", "ok", "none: jobs with `compile` run as written")
    return Finding("compiler", "ok", f"{found}: jobs may be compiled")
