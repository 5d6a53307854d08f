"""I1 to I8 of the design's reliability rules, each one function over history, database and disk.

`check` runs them all. Call it once the fault is over: it waits for what has to end.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from sqlalchemy import select

from app.datasets.tables import Dataset, DatasetFile, StorageHold, UploadPart
from app.garbage import collect
from app.jobs.states import LEGAL, LIVE, TERMINAL, Status
from app.jobs.tables import Attempt, Checkpoint, Job, JobEvent, JobInput, Outbox, Point
from app.models.tables import Model, ModelFile
from app.platform import read_scope
from tests.faults.engine import chain, loss
from tests.faults.history import Asked
from tests.faults.rig import Rig
from tests.services import wait_for

UNDER_LOAD = {408, 429, 503, 507}
"""What every route may answer, whatever its own list says."""


def check(rig: Rig, seconds: float = 150) -> None:
    """All of them. Raises AssertionError that names the broken one."""
    for invariant in (
        lambda: i1_every_answered_job_exists_and_ends(rig, seconds),
        lambda: i2_every_event_log_is_a_legal_path(rig),
        lambda: i3_writes_follow_the_fence_and_no_two_attempts_overlap(rig),
        lambda: i4_no_step_is_missing_doubled_or_different(rig),
        lambda: i5_every_committed_byte_is_there(rig),
        lambda: i6_nothing_is_left_over(rig),
        lambda: i7_clients_saw_documented_answers(rig),
        lambda: i8_no_answer_and_no_log_holds_a_secret(rig),
    ):
        invariant()


def i1_every_answered_job_exists_and_ends(rig: Rig, seconds: float) -> None:
    """A job answered 2xx exists, and ends within `seconds`; one key never made two."""
    made = [each for each in rig.history.read() if _made_job(each)]

    def ended() -> bool:
        with read_scope(rig.platform) as session:
            return session.scalar(select(Job.id).where(Job.status.in_(LIVE)).limit(1)) is None

    _until(ended, seconds, lambda: f"I1: jobs have not ended:\n{rig.tails()}")
    with read_scope(rig.platform) as session:
        known = set(session.scalars(select(Job.id)))
    assert not {each.id for each in made} - known, "I1: a job that was answered is gone"
    by_key: dict[str, set[str]] = {}
    for each in made:
        by_key.setdefault(each.key or each.id, set()).add(each.id)
    assert not {key: ids for key, ids in by_key.items() if len(ids) > 1}, "I1: one key made several jobs"
    trained = sum(job.type == "pretrain" for job in _jobs(rig))
    asked = {each.key for each in rig.history.read() if each.method == "POST" and each.path == "/v1/jobs" and each.key}
    unkeyed = [each for each in made if not each.key]
    assert trained <= len(asked) + len(unkeyed), "I1: there are more jobs than were asked for"


def i2_every_event_log_is_a_legal_path(rig: Rig) -> None:
    """Each state change is in the table, the last one is the job's, nothing moves after an end."""
    for job in _jobs(rig):
        with read_scope(rig.platform) as session:
            query = select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)
            events = list(session.scalars(query))
        assert [each.seq for each in events] == list(range(1, len(events) + 1)), f"I2: a gap in the events of {job.id}"
        states = [Status(str(each.data["to"])) for each in events if each.type == "state"]
        assert states[0] == Status.QUEUED and states[-1] == job.status, f"I2: {job.id}: {states} but {job.status}"
        wrong = [pair for pair in pairwise(states) if pair not in LEGAL]
        assert not wrong, f"I2: {job.id} made moves that do not exist: {wrong}"
        assert not set(states[:-1]) & TERMINAL, f"I2: {job.id} moved after its end: {states}"


def i3_writes_follow_the_fence_and_no_two_attempts_overlap(rig: Rig) -> None:
    """The diary never goes back to an older attempt, and no attempt took a step after a newer one began."""
    for job in _jobs(rig):
        with read_scope(rig.platform) as session:
            query = select(JobEvent.fence).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)
            fences = list(session.scalars(query))
            attempts = list(session.scalars(select(Attempt.fence).where(Attempt.job_id == job.id)))
        assert fences == sorted(fences), f"I3: an old attempt wrote into {job.id}: {fences}"
        assert sorted(attempts) == list(range(1, job.fence + 1)), f"I3: {job.id} has attempts {attempts}"
    spans: dict[str, dict[int, tuple[float, float]]] = {}
    for run, _, _, at in rig.traced():
        job_id, _, fence = run.rpartition("-")
        first, _ = spans.setdefault(job_id, {}).get(int(fence), (at, at))
        spans[job_id][int(fence)] = (first, at)
    for job_id, found in spans.items():
        ordered = [found[fence] for fence in sorted(found)]
        late = [pair for pair in pairwise(ordered) if pair[0][1] > pair[1][0]]
        assert not late, f"I3: two attempts of {job_id} trained at once: {late}"


def i4_no_step_is_missing_doubled_or_different(rig: Rig) -> None:
    """Curve and weights are those of a run that nobody disturbed."""
    for job in _jobs(rig):
        if job.type != "pretrain" or job.status != Status.SUCCEEDED:
            continue
        steps = int(job.meta["steps"])
        states = chain(steps)
        with read_scope(rig.platform) as session:
            points = list(session.scalars(select(Point).where(Point.job_id == job.id).order_by(Point.step)))
            model = session.scalars(select(Model).where(Model.job_id == job.id)).one()
            path = ModelFile.path == "model.safetensors"
            key = session.scalars(select(ModelFile.key).where(ModelFile.model_id == model.id, path)).one()
        curve = [(point.series, point.step, point.value) for point in points]
        wanted = [("loss", n, loss(states[n])) for n in range(1, steps + 1)]
        assert curve == wanted, f"I4: the curve of {job.id}: {sorted(set(curve) ^ set(wanted))}"
        assert rig.platform.store.get(key) == states[-1].encode(), f"I4: the weights of {job.id}"


def i5_every_committed_byte_is_there(rig: Rig) -> None:
    """Every file that a row names is in the store with that size and digest, and every reference resolves."""
    with read_scope(rig.platform) as session:
        rows = [*session.scalars(select(ModelFile)), *session.scalars(select(DatasetFile))]
        named = [(row.key, row.size, row.sha256) for row in (*rows, *session.scalars(select(UploadPart)))]
        named += [(row.key, row.bytes, row.sha256) for row in session.scalars(select(Dataset))]
        usable = select(Checkpoint).where(Checkpoint.superseded.is_(False))
        named += [(f["key"], f["size"], f["sha256"]) for row in session.scalars(usable) for f in row.files]
        known = set(session.scalars(select(Dataset.id))) | set(session.scalars(select(Model.id)))
        broken = set(session.scalars(select(JobInput.ref_id))) - known
    assert not broken, f"I5: inputs that do not exist: {broken}"
    for key, size, sha256 in named:
        content = rig.platform.store.get(key)
        assert (len(content), hashlib.sha256(content).hexdigest()) == (size, sha256), f"I5: {key} is damaged"


def i6_nothing_is_left_over(rig: Rig) -> None:
    """No engine, run folder, held room or unsent bell; after one pass of the collector no object without an owner."""
    _until(lambda: not engines(rig.folder), 20, lambda: f"I6: engines live on: {engines(rig.folder)}")
    live = [name for name, process in rig.workers.items() if process.poll() is None]
    runs = [rig.folder / name / "worker" for name in live]

    def tidy() -> bool:
        return not [each for root in runs for kind in ("runs", "attempts") for each in (root / kind).glob("*")]

    _until(tidy, 20, lambda: f"I6: run folders stay:\n{rig.tails()}")

    def rung() -> bool:
        with read_scope(rig.platform) as session:
            return session.scalar(select(Outbox.id).limit(1)) is None

    _until(rung, 20, lambda: "I6: the outbox is not empty")
    collect(rig.platform, grace_seconds=0)
    time.sleep(0.01)
    collect(rig.platform, grace_seconds=0)
    assert collect(rig.platform, grace_seconds=0, dry_run=True).stray == 0, "I6: the collector leaves objects behind"
    with read_scope(rig.platform) as session:
        forever = [row.id for row in session.scalars(select(StorageHold)) if not row.expires_ms]
    assert not forever, "I6: room is held for ever"


def i7_clients_saw_documented_answers(rig: Rig) -> None:
    """Every status is one that the API's own document lists for the route; 5xx are 503 or 507 with Retry-After."""
    documented = _documented(rig)
    for each in rig.history.read():
        if each.status == 0:
            continue
        where = f"I7: {each.method} {each.path} answered {each.status} {each.code}"
        if each.status >= 500:
            assert each.status in (503, 507) and each.retry_after.isdigit(), where
        if each.status >= 400:
            assert each.code, f"{where}, which is no error envelope"
        allowed = next((s for method, path, s in documented if method == each.method and path.match(each.path)), None)
        assert allowed is not None and each.status in allowed | UNDER_LOAD, where


def i8_no_answer_and_no_log_holds_a_secret(rig: Rig) -> None:
    """No answer holds a secret, a traceback, a folder of ours; no log holds a secret."""
    told = [(each.method, each.path, each.found) for each in rig.history.read() if each.found]
    assert not told, f"I8: answers hold what nobody may see: {told}"
    secrets = [each for each in (*rig.history.forbidden[:-2], rig.key) if each]
    for log in rig.folder.glob("*.log"):
        text = log.read_text(errors="replace")
        assert not [each[:6] for each in secrets if each in text], f"I8: {log.name} holds a secret"


def engines(folder: Path) -> list[int]:
    """Live processes of any run below this folder."""
    mark, found = f"GROUNDWORK_RUN={folder}".encode(), []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _made_job(each: Asked) -> bool:
    return each.method == "POST" and each.path == "/v1/jobs" and 200 <= each.status < 300


def _jobs(rig: Rig) -> list[Job]:
    with read_scope(rig.platform) as session:
        found = list(session.scalars(select(Job)))
    # The ingest of the rig's own dataset was ended by hand, not by the machine.
    return [job for job in found if job.type != "ingest" or job.fence > 0]


def _documented(rig: Rig) -> list[tuple[str, re.Pattern[str], set[int]]]:
    document = rig.client.http.get("/openapi.json").json()
    return [
        (method.upper(), re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path) + "$"), {int(s) for s in facts["responses"]})
        for path, methods in document["paths"].items()
        for method, facts in methods.items()
    ]


def _until(what: Callable[[], bool], seconds: float, why: Callable[[], str]) -> None:
    try:
        wait_for(what, seconds)
    except TimeoutError:
        raise AssertionError(why()) from None


def summary(rig: Rig) -> str:
    """How much was checked, for a log."""
    statuses: dict[int, int] = {}
    for each in rig.history.read():
        statuses[each.status] = statuses.get(each.status, 0) + 1
    return json.dumps({"jobs": len(_jobs(rig)), "answers": dict(sorted(statuses.items()))})
