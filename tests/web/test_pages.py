"""What every page promises: headers, escaping, tenancy, and errors that a person can read."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.web import assets
from app.web.edge import _HEADERS
from tests.app import registered
from tests.app.embedded import embedded, vectors_folder
from tests.app.jobs_world import Worker, metrics_event, pretrain_body, ready_dataset
from tests.model_folders import text_model
from tests.ssl_core.datasets import image_dataset
from tests.web.conftest import Api, client_of, new_key, sign_in

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\'{{7*7}}'
PAGES = ("/ui", "/ui/datasets", "/ui/jobs", "/ui/models", "/ui/keys", "/ui/webhooks", "/ui/new-job", "/ui/compare")


class Found(HTMLParser):
    """Elements of a page, and attributes that would run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.running: list[tuple[str, str]] = []
        self.inside: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_script = tag == "script"
        if tag == "script":
            self.scripts.append(dict(attrs))
        self.running += [(tag, name) for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.inside.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False


def check_markup(text: str) -> None:
    """Nothing of a page runs but our own files."""
    found = Found(text)
    assert not found.running and not found.inside
    assert all((each.get("src") or "").startswith("/ui/static/") for each in found.scripts)


@pytest.mark.parametrize("path", ["/ui/login", *PAGES, "/ui/nothing-here"])
def test_every_page_carries_the_headers_and_no_script_of_its_own(browser: TestClient, path: str) -> None:
    reply = browser.get(path)
    assert reply.status_code == (404 if path.endswith("nothing-here") else 200)
    assert "text/html" in reply.headers["content-type"]
    for name, value in _HEADERS.items():
        assert reply.headers[name] == value, name
    policy = reply.headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', reply.text)
    check_markup(reply.text)


def test_what_scripts_load_is_ours_compressed_and_kept(api: Api) -> None:
    page = api.anonymous.get("/ui/login").text
    loaded = re.findall(r'(?:src|href)="(/ui/static/[^"]+)"', page)
    assert len(loaded) >= 3
    for path in loaded:
        reply = api.anonymous.get(path, headers={"Accept-Encoding": "gzip"})
        assert reply.status_code == 200 and reply.headers["content-encoding"] == "gzip"
        assert "immutable" in reply.headers["cache-control"]
        again = api.anonymous.get(path, headers={"If-None-Match": reply.headers["etag"]})
        assert again.status_code == 304 and not again.content
        plain = api.anonymous.get(path, headers={"Accept-Encoding": "identity"})
        assert plain.content == reply.content


@pytest.mark.parametrize("path", ["../edge.py", "%2e%2e/edge.py", "vendor/../../edge.py", "nothing.js", "", "vendor"])
def test_nothing_else_lies_among_the_files(api: Api, path: str) -> None:
    reply = api.anonymous.get(f"/ui/static/{path}", follow_redirects=False)
    assert reply.status_code in (303, 404) and "def page" not in reply.text


def test_scripts_of_a_page_know_each_other_by_one_address(api: Api) -> None:
    """Under two addresses a module would run twice, and every button would act twice."""
    for name, asset in assets.assets().items():
        if name.endswith(".js") and "/" not in name:
            found = re.findall(r"from '([^']+)'", asset.content.decode())
            assert all(each.startswith("./") and each[2:] in assets.assets() for each in found), name
    assert f'src="/ui/static/{assets.version()}/app.js"' in api.anonymous.get("/ui/login").text
    older = api.anonymous.get("/ui/static/0123456789ab/app.js")
    assert older.status_code == 200 and older.headers["cache-control"] == "no-cache"


def test_all_scripts_and_styles_together_are_light() -> None:
    packed = {name: len(asset.packed) for name, asset in assets.assets().items()}
    assert sum(packed.values()) < 150_000, packed
    assert all(gzip.decompress(asset.packed) == asset.content for asset in assets.assets().values())


def test_what_was_taken_from_others_has_its_licence_beside_it() -> None:
    vendor = assets.FOLDER / "vendor"
    for path in (*vendor.glob("*.js"), *vendor.glob("*.css")):
        assert (vendor / f"{path.name.partition('.')[0]}.LICENSE").is_file(), path


def hostile_dataset(api: Api) -> str:
    """Ready, with a class of that name."""
    return ready_dataset(api.platform, api.project_id, classes=[HOSTILE], class_counts={HOSTILE: 3})


def test_hostile_names_labels_and_rows_are_only_text(api: Api, browser: TestClient, tmp_path: Path) -> None:
    fields = {"name": HOSTILE, "metadata": '{"<b>k</b>": "<i>v</i>"}'}
    files = {"file": (f"{HOSTILE}.csv", b"text,label\nhello,a\n")}
    made = api.client.post("/v1/datasets", files=files, data=fields)
    assert made.status_code == 201, made.text
    model = registered.model(api.platform, api.project_id, text_model(tmp_path / "model", task=True), name=HOSTILE)
    labelled = hostile_dataset(api)
    body = pretrain_body(labelled, metadata={"a": HOSTILE}, suffix=HOSTILE[:60])
    job = api.client.post("/v1/jobs", json=body).json()["id"]
    assert api.client.post("/v1/api_keys", json={"name": HOSTILE}).status_code == 201
    paths = [
        *PAGES, f"/ui/datasets/{made.json()['id']}", f"/ui/datasets/{labelled}", f"/ui/models/{model}",
        f"/ui/jobs/{job}", f"/ui/new-job?from={job}", f"/ui/new-job?type={HOSTILE}&dataset={HOSTILE}",
        f"/ui/compare?job={job}&job={job}",
    ]  # fmt: skip
    shown = 0
    for path in paths:
        reply = browser.get(path)
        assert reply.status_code == 200, (path, reply.text[:300])
        check_markup(reply.text)
        assert "<script>alert" not in reply.text and "<img src=x" not in reply.text
        shown += "&lt;script&gt;alert(1)" in reply.text or "\\u003cscript\\u003e" in reply.text
    assert shown >= 7


def test_rows_of_text_and_samples_are_only_text(api: Api, browser: TestClient) -> None:
    dataset = ready_dataset(api.platform, api.project_id)
    job = api.client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"]
    worker = Worker(api.anonymous)
    ticket = worker.claim(job)
    assert ticket is not None
    worker.put(ticket, "samples/fills.txt", f"a [{HOSTILE[2:10]} > b] {HOSTILE}\nplain [x > x]".encode())
    sample = {"seq": 1, "time": 0.0, "type": "sample", "step": 1, "name": "fills", "path": "samples/fills.txt"}
    warning = {"seq": 2, "time": 0.0, "type": "message", "level": "warning", "code": "odd", "message": HOSTILE}
    told = [{**sample, "media_type": "text/plain", "caption": HOSTILE}, warning]
    points = [metrics_event(3 + at, at + 1, **{"train/loss": 3.0 - at}) for at in range(3)]
    assert worker.post(ticket, "events", events=[*told, *points]).status_code == 200
    page = browser.get(f"/ui/jobs/{job}").text
    check_markup(page)
    assert "&lt;script&gt;alert(1)" in page and "<script>alert" not in page
    assert '<span class="fill right"><s>x</s> <b>x</b></span>' in page
    assert "<polyline points=" in browser.get("/ui/jobs").text


def test_a_foreign_thing_is_a_missing_page(api: Api, browser: TestClient, tmp_path: Path) -> None:
    theirs: dict[str, Any] = {"dataset": ready_dataset(api.platform, api.stranger_project_id)}
    theirs["job"] = api.stranger.post("/v1/jobs", json=pretrain_body(theirs["dataset"])).json()["id"]
    theirs["model"] = registered.model(api.platform, api.stranger_project_id, text_model(tmp_path / "model"))
    paths = [
        "/ui/datasets/{dataset}", "/ui/datasets/{dataset}/rows/0", "/ui/jobs/{job}", "/ui/models/{model}",
        "/ui/new-job?from={job}", "/ui/compare?job={job}", "/ui/reports/{job}", "/ui/maps/{job}",
        "/ui/maps/{job}/vectors",
    ]  # fmt: skip
    for path in paths:
        foreign = browser.get(path.format(**theirs))
        absent = {name: id[:-6] + "000000" for name, id in theirs.items()}
        missing = browser.get(path.format(**absent))
        assert foreign.status_code == missing.status_code == 404, path
        same = foreign.text
        for name, id in theirs.items():
            same = same.replace(id, absent[name])
        assert same == missing.text, path


def test_lists_and_overview_hold_nothing_of_others(api: Api, browser: TestClient) -> None:
    dataset = ready_dataset(api.platform, api.stranger_project_id)
    job = api.stranger.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"]
    for path in PAGES:
        text = browser.get(path).text
        assert dataset not in text and job not in text and api.stranger_project_id not in text, path
    stranger = client_of(api.app)
    sign_in(stranger, new_key(api.platform, api.stranger_project_id))
    assert dataset in stranger.get("/ui/datasets").text and job in stranger.get("/ui/jobs").text


def test_pictures_of_rows_are_served_as_pictures(api: Api, browser: TestClient, tmp_path: Path) -> None:
    dataset = registered.dataset(api.platform, api.project_id, image_dataset(tmp_path / "rows"))
    reply = browser.get(f"/ui/datasets/{dataset}/rows/3")
    assert reply.status_code == 200 and reply.headers["content-type"] == "image/png"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in reply.headers["content-security-policy"]
    assert browser.get(f"/ui/datasets/{dataset}/rows/99999").status_code == 422
    assert browser.get(f"/ui/datasets/{dataset}/rows/x").status_code == 422


def test_a_dataset_that_was_embedded_can_be_searched_from_its_page(
    api: Api, browser: TestClient, tmp_path: Path
) -> None:
    dataset = ready_dataset(api.platform, api.project_id)
    model = registered.model(api.platform, api.project_id, text_model(tmp_path / "model", task=True), name=HOSTILE)
    embedded(api.platform, api.project_id, (dataset, model), None)  # queued: nothing can be searched yet
    page = browser.get(f"/ui/datasets/{dataset}").text
    assert "search-form" not in page and f"/ui/new-job?type=embed&amp;dataset={dataset}" in page
    folder = vectors_folder(tmp_path / "vectors", np.eye(3, 8))
    embedded(api.platform, api.project_id, (dataset, model), folder)
    page = browser.get(f"/ui/datasets/{dataset}").text
    assert f'<option value="{model}">' in page and 'id="search-text"' in page and "search.js" in page
    check_markup(page)


def test_a_page_for_admins_tells_others_so(api: Api) -> None:
    reader = client_of(api.app)
    sign_in(reader, new_key(api.platform, api.project_id, "read"))
    for path in ("/ui/keys", "/ui/webhooks"):
        reply = reader.get(path)
        assert reply.status_code == 403 and "admin" in reply.text and "text/html" in reply.headers["content-type"]
    assert reader.get("/ui/jobs").status_code == 200


def test_the_schema_of_the_form_is_that_of_the_api(browser: TestClient) -> None:
    reply = browser.get("/ui/job-schema.json")
    kinds = reply.json()["discriminator"]["mapping"]
    assert {"pretrain", "finetune", "embed", "label_efficiency"} <= set(kinds)
    assert browser.get("/ui/job-schema.json", headers={"If-None-Match": reply.headers["etag"]}).status_code == 304


def test_a_bad_query_is_told_as_a_page(browser: TestClient) -> None:
    for path in ("/ui/jobs?limit=0", "/ui/jobs?after=job_nothing", "/ui/datasets?limit=x"):
        reply = browser.get(path)
        assert 400 <= reply.status_code < 500 and "That did not work" in reply.text, path
    assert browser.get("/ui/jobs?status=nonsense&type=<script>").status_code == 200
