"""The client without a server: its twin, its configuration, its objects and its words."""

from __future__ import annotations

import copy
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import groundwork
from groundwork import (
    APIStatusError,
    AsyncClient,
    Client,
    DatasetInvalid,
    GroundworkError,
    JobFailed,
    NotConfigured,
    UnsafeName,
)
from groundwork import client as names
from groundwork.rest import twin
from groundwork.rest.names import named_by, within
from groundwork.rest.values import BadRow, DatasetFields, JobFields, Thing
from tests.groundwork.serving import ROOT


def test_the_client_without_asyncio_is_made_from_the_one_with_it() -> None:
    made = twin.files()
    stale = [path.name for path, content in made.items() if not path.exists() or path.read_text() != content]
    assert not stale, f"run python -m groundwork.rest.twin: {stale}"
    generated = {path.name for path in made}
    assert {path.name for path in (twin.HERE / "sync").glob("*.py")} == generated | twin.BY_HAND
    assert not [path.name for path, content in made.items() if "async" in content or "await " in content]


def test_the_twin_turns_words_and_leaves_strings_and_comments() -> None:
    source = 'async def f(x: AsyncIterator[AsyncJob]) -> None:\n    await g("async", x)  # await it\n'
    assert twin.twin(source) == 'def f(x: Iterator[Job]) -> None:\n    g("async", x)  # await it\n'


def test_both_clients_have_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(AsyncClient) - {"aclose"} == public(Client) - {"close"}
    assert public(names.AsyncJob) == public(names.Job)
    assert public(names.AsyncModel) == public(names.Model)
    assert public(names.AsyncDataset) == public(names.Dataset)


def test_every_name_is_at_the_top_and_nothing_else() -> None:
    assert all(getattr(groundwork, name) is getattr(names, name) for name in names.__all__)
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = groundwork.Nonsense  # type: ignore[attr-defined]


def needed_by(package: str) -> set[str]:
    """It, what it depends on, and what that does, as distributions are named."""
    found: set[str] = set()
    left = [package]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another system, or another Python
            continue
        left += [_named(each) for each in needed if "extra ==" not in each]
    return found


def _named(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def test_the_client_works_where_nothing_but_its_http_library_can_be_imported() -> None:
    kept = needed_by("httpx2")
    assert "httpcore2" in kept and not kept & {"pydantic", "fastapi", "torch", "numpy"}
    owners = importlib.metadata.packages_distributions()
    barred = {name for name, owned in owners.items() if not kept & {_named(each) for each in owned}} - {"groundwork"}
    assert {"pydantic", "fastapi", "torch"} <= barred
    code = f"""
import sys
class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(barred)!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Barred())
from groundwork import AsyncClient, Client
Client("http://127.0.0.1:1", "gw_key").close()
"""
    clean = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("GROUNDWORK_URL", "GROUNDWORK_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_is_missing_is_named_with_where_it_can_be_given(
    kind: type[Client | AsyncClient], no_variables: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotConfigured, match="GROUNDWORK_URL"):
        kind(api_key="gw_key")
    with pytest.raises(NotConfigured, match="GROUNDWORK_API_KEY"):
        kind("http://127.0.0.1:1")
    no_variables.setenv("GROUNDWORK_URL", "http://127.0.0.1:1/v1/")
    no_variables.setenv("GROUNDWORK_API_KEY", "gw_key\n")
    assert kind().transport.url == "http://127.0.0.1:1"


@pytest.mark.parametrize("url", ["127.0.0.1:8420", "ftp://host", "http://"])
def test_what_is_no_address_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(NotConfigured, match="no address"):
        Client(url, "gw_key")
    with pytest.raises(NotConfigured, match="characters"):
        Client("http://127.0.0.1:1", "gw_kéy")


def test_an_object_shows_what_it_knows_and_keeps_what_it_does_not() -> None:
    job = JobFields({"id": "job_1", "type": "pretrain", "status": "new_one", "from_a_newer_server": 1})
    assert (job.id, job.status, job["from_a_newer_server"], job.get("none", 2)) == ("job_1", "new_one", 1, 2)
    assert job.finished_at is None and job.error is None and job.progress is None and job.attempts == []
    assert not job.ended and job.model_id is None and job.final_metrics == {}
    assert repr(job) == "JobFields(id='job_1', type='pretrain', status='new_one')" and "status" in job
    with pytest.raises(AttributeError, match="statsu"):
        _ = job.statsu  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="cannot be set"):
        job.status = "failed"
    assert job == copy.deepcopy(job) and job != Thing(job.raw)
    assert len({job, copy.copy(job)}) == 1


def test_the_text_of_an_error_is_one_line() -> None:
    refused = APIStatusError(422, {"message": "`budget`:\n not a\nnumber", "code": "type_error", "param": "budget"})
    assert str(refused) == "`budget`: not a number [422 type_error]" and refused.param == "budget"
    why = {"code": "leakage", "message": "Row 3\nis in both.", "param": None}
    failed = JobFailed(JobFields({"id": "job_1", "type": "finetune", "status": "failed", "error": why}))
    assert str(failed) == "finetune job job_1 ended failed: Row 3 is in both. [leakage]"
    assert str(JobFailed(JobFields({"id": "job_1", "type": "embed", "status": "cancelled"}))) == (
        "embed job job_1 ended cancelled"
    )
    error = {"code": "missing_field", "message": "the row has no `text`", "param": "a.csv:3"}
    invalid = DatasetInvalid(DatasetFields({"id": "ds_1", "filename": "a.csv", "error": error}), [BadRow({"row": 3})])
    assert str(invalid) == "dataset ds_1 (a.csv) is invalid: a.csv:3: the row has no `text` [missing_field]"
    assert invalid.rows[0].row == 3 and isinstance(invalid, GroundworkError)


OUTSIDE = ["../up", "a/../../up", "/etc/passwd", "a//b", "C:/x", "a\\b", "a/./b", "", "..", "a\0"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_of_the_server_never_leaves_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeName, match="would not stay"):
        within(tmp_path / "in", name)
    assert within(tmp_path, "a/b.txt") == tmp_path / "a" / "b.txt"


def test_a_link_in_the_folder_is_no_way_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    with pytest.raises(UnsafeName):
        within(tmp_path / "in", "link/file")


def test_a_suggested_name_is_only_a_name() -> None:
    told = "attachment; filename=\"x\"; filename*=UTF-8''..%2F..%2Fevil%00%C3%A9.zip"
    assert named_by(told, "y") == "_.._evil_é.zip"
    assert named_by(None, "ds_1") == "ds_1" and named_by("attachment; filename*=UTF-8''..", "x") == "download"
