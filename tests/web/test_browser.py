"""Walks through the dashboard in a real browser, at a real `groundwork serve` with a real worker."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.groundwork.serving import Served, eventually
from tests.ssl_core.datasets import TOPICS
from tests.web.browser import Visitor, chromium, visiting

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]
ENDED = {"succeeded", "failed", "cancelled"}
PRETRAIN = {
    "type": "pretrain", "objective": {"name": "span_contrast"}, "backbone": "text-tiny", "budget": {"steps": 30},
    "batch_size": 16, "validation_fraction": 0.1,
}  # fmt: skip


@dataclass
class World:
    """A server, a key, and the files a person would bring."""

    url: str
    key: str
    api: httpx2.Client
    pool: Path
    few: Path
    test: Path

    def upload(self, path: Path, name: str) -> str:
        """A ready dataset."""
        made = self.api.post("/v1/datasets", files={"file": (path.name, path.read_bytes())}, data={"name": name})
        return str(self.ended("datasets", made.json()["id"], {"ready", "invalid"})["id"])

    def job(self, **spec: Any) -> str:
        """A job that was accepted."""
        reply = self.api.post("/v1/jobs", json=spec)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])

    def ended(self, kind: str, id: str, ends: set[str] = ENDED) -> dict[str, Any]:
        """The thing once it has come to an end."""

        def found() -> dict[str, Any] | None:
            told: dict[str, Any] = self.api.get(f"/v1/{kind}/{id}").json()
            return told if told["status"] in ends else None

        told: dict[str, Any] = eventually(found, 600)
        return told


def sentence(draw: random.Random, topic: str) -> str:
    """Words, more of them of a topic than of any other."""
    everything = [word for words in TOPICS.values() for word in words]
    told = [draw.choice(TOPICS[topic] if draw.random() < 0.3 else everything) for _ in range(draw.randint(8, 24))]
    return " ".join(told)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    chromium()
    folder, draw = tmp_path_factory.mktemp("browser"), random.Random(0)
    pool, few, test = folder / "pool.txt", folder / "few.jsonl", folder / "test.jsonl"
    topics = sorted(TOPICS)
    pool.write_text("\n".join(sentence(draw, draw.choice(topics)) for _ in range(400)))
    for path in (few, test):
        rows = [{"text": sentence(draw, topic), "label": topic} for topic in topics for _ in range(12)]
        path.write_text("\n".join(map(json.dumps, rows)))
    served = Served(folder / "data", outbound="true").ready()
    try:
        key = re.findall(r"gw_[a-z0-9_]+", served.printed())[0]
        url = served.state()["url"]
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as api:
            yield World(url, key, api, pool, few, test)
    finally:
        served.process.terminate()
        served.process.wait(60)


@pytest.fixture
def visitor(world: World) -> Iterator[Visitor]:
    """Signed in."""
    with visiting(world.url) as found:
        sign_in(found, world)
        yield found


def sign_in(visitor: Visitor, world: World) -> None:
    visitor.go("/")
    visitor.page.fill("#key", world.key)
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector("h1:text('Overview')")


def last_point(visitor: Visitor) -> str:
    return str(visitor.page.locator("#curves .chart").first.get_attribute("class")) + str(
        visitor.page.locator("#curves .plot").first.get_attribute("aria-label")
    )


def test_from_an_empty_server_to_a_model_that_answers(world: World) -> None:
    with visiting(world.url) as visitor:
        page = visitor.page
        visitor.go("/ui")
        visitor.check("login")
        sign_in(visitor, world)
        assert page.is_visible("text=Start with your data")
        visitor.check()

        page.click("text=Upload a dataset")
        page.set_input_files("#file", str(world.pool))
        page.fill("#name", "Three topics, pool")
        page.click("#upload-form button.primary")
        page.wait_for_selector(".pill.ready")
        assert page.is_visible("text=First rows") and page.is_visible("text=400")
        visitor.check("dataset")

        page.click("text=Pretrain on it")
        page.wait_for_selector("#job-form[data-ready]")
        page.select_option('[data-path="objective"]', "span_contrast")
        page.select_option('[data-path="backbone"]', "text-tiny")
        page.select_option("[aria-label='Unit of the budget']", "steps")
        page.locator(".pair input").fill("-3")
        page.wait_for_selector("#problem:not([hidden])")
        assert "budget" in str(page.locator("[aria-invalid]").get_attribute("data-path"))
        assert all("422" in each for each in visitor.wrong), visitor.wrong  # how a browser logs a refusal
        visitor.wrong.clear()
        page.locator(".pair input").fill("40")
        page.wait_for_selector("#resolved:not([hidden])")
        resolved = json.loads(page.inner_text("#resolved pre"))
        assert resolved["budget"]["steps"] == 40 and resolved["optimizer"]["learning_rate"] > 0
        visitor.check("new-job")

        page.click("#send")
        page.wait_for_selector("[data-job]")
        job = page.get_attribute("[data-job]", "data-job")
        page.wait_for_selector("#curves .chart canvas")
        seen = last_point(visitor)
        eventually(lambda: page.wait_for_timeout(200) or last_point(visitor) != seen, 300)  # the curve moved, by itself
        assert page.locator("#events li").count() >= 2
        visitor.check("job-live")
        page.wait_for_selector("#head .pill.succeeded", timeout=600_000)
        assert world.ended("jobs", str(job))["result"]["model"]
        visitor.check("job")

        page.click("text=Open model")
        page.wait_for_selector(".node.here")
        page.click("text=Embed and compare")
        page.wait_for_selector("table.grid", timeout=120_000)
        assert page.locator("table.grid td").first.is_visible()
        with page.expect_download() as download:
            page.click("text=native.zip")
        assert Path(download.value.path()).read_bytes()[:2] == b"PK"
        visitor.check("model")


def test_a_running_job_is_cancelled_from_its_page_by_keyboard(world: World, visitor: Visitor) -> None:
    page = visitor.page
    job = world.job(**PRETRAIN | {"dataset": world.upload(world.pool, "pool"), "budget": {"steps": 100_000}})
    visitor.go(f"/ui/jobs/{job}")
    page.wait_for_selector("#head .pill.running", timeout=120_000)
    page.focus("button:text-is('Cancel')")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#head .pill.cancelled", timeout=120_000)
    assert world.ended("jobs", job)["status"] == "cancelled"
    visitor.check()


def test_measures_maps_and_comparisons(world: World, visitor: Visitor) -> None:
    page = visitor.page
    pool, few = world.upload(world.pool, "Topics, pool"), world.upload(world.few, "Topics, 12 per class")
    runs = [world.job(**PRETRAIN | {"dataset": pool, "seed": seed}) for seed in (1, 2)]
    model = world.ended("jobs", runs[0])["result"]["model"]
    world.ended("jobs", runs[1])
    embed = world.job(type="embed", model=model, dataset=few)
    test = world.upload(world.test, "Topics, test")
    report = world.job(
        type="label_efficiency", model=model, dataset=few, test_dataset=test, labels=[2, 6], seeds=2,
        arms=["probe", "classical"], allow_leakage=True,
    )  # fmt: skip

    visitor.go("/ui/jobs")
    for run in runs:
        page.check(f'input[value="{run}"]')
    visitor.check("jobs")
    page.click("text=Compare chosen")
    page.wait_for_selector("#curves .chart canvas")
    assert page.locator(".diff td", has_text="seed").count() == 1
    visitor.check("compare")

    assert world.ended("jobs", embed)["status"] == "succeeded"
    visitor.go(f"/ui/maps/{embed}")
    page.wait_for_selector("canvas[data-drawn]")
    assert page.locator("#map-keys button").count() == len(TOPICS)
    share = re.search(r"hold (\d+) %", page.inner_text("#map-told"))
    assert share and 0 < int(share[1]) <= 100
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    assert "Row 0" in page.inner_text("#map-row")
    visitor.check("map")

    visitor.go(f"/ui/datasets/{few}")
    page.fill("#search-text", sentence(random.Random(5), sorted(TOPICS)[0]))
    page.click("#search-form button")
    page.wait_for_selector("#search-found figure", timeout=120_000)
    assert page.locator("#search-found figure").count() == 12
    page.select_option("#search-label", sorted(TOPICS)[1])
    page.locator("text=More like it").first.click()
    page.wait_for_selector("#search-found p:has-text('Nearest to row')")
    assert {each.inner_text() for each in page.locator("#search-found .tag").all()} == {sorted(TOPICS)[1]}
    visitor.check("search")

    assert world.ended("jobs", report)["status"] == "succeeded"
    visitor.go(f"/ui/reports/{report}")
    page.wait_for_selector("#curves .chart canvas")
    assert page.locator("table tbody tr").count() == 4
    visitor.check("report")
    visitor.go("/ui")
    visitor.check("overview")


def test_keys_and_receivers_are_made_and_ended(world: World, visitor: Visitor) -> None:
    page = visitor.page
    visitor.go("/ui/keys")
    page.fill("#name", "made in the browser")
    page.click("text=Make key")
    page.wait_for_selector("#secret:not([hidden])")
    key = page.inner_text("#secret pre").strip()
    assert httpx2.get(f"{world.url}/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    row = page.locator("tr", has_text="made in the browser")
    row.wait_for()
    page.evaluate("document.getElementById('secret').hidden = true")
    visitor.check("keys")
    row.locator("text=Revoke").click()
    page.click("text=Yes, do it")
    page.wait_for_selector("tr:has-text('made in the browser') .pill.revoked")
    assert httpx2.get(f"{world.url}/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 401

    visitor.go("/ui/webhooks")
    page.fill("#url", "https://example.com/hook")
    page.click("text=Add receiver")
    page.wait_for_selector("section.panel h2:has-text('https://example.com/hook')")
    visitor.check("webhooks")


@pytest.mark.parametrize("look", ["dark", "light"])
def test_every_page_is_readable_on_a_phone_in_both_themes(world: World, look: Any) -> None:
    with visiting(world.url, viewport={"width": 390, "height": 844}, color_scheme=look) as visitor:
        sign_in(visitor, world)
        for path in ("/ui", "/ui/datasets", "/ui/jobs", "/ui/models", "/ui/keys", "/ui/webhooks", "/ui/new-job"):
            visitor.go(path)
            wide = visitor.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, (path, wide)
            visitor.check(f"phone-{look}" if path == "/ui" else "")


def test_the_theme_switch_is_kept(world: World, visitor: Visitor) -> None:
    page = visitor.page
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    visitor.go("/ui/models")
    assert before != after == page.evaluate("getComputedStyle(document.body).backgroundColor")
    visitor.check("models-dark")


def test_all_that_a_page_loads_is_small(world: World, visitor: Visitor) -> None:
    sizes: dict[str, int] = {}
    visitor.page.on("response", lambda reply: sizes.update({reply.url: int(reply.headers.get("content-length", 0))}))
    for path in ("/ui/jobs", "/ui/new-job", "/ui/compare"):
        visitor.go(path)
        visitor.page.wait_for_load_state("networkidle")
    loaded = {url: size for url, size in sizes.items() if "/ui/static/" in url}
    assert len(loaded) >= 6 and sum(loaded.values()) < 150_000, loaded


def test_the_pages_say_something_without_scripts(world: World) -> None:
    with visiting(world.url, java_script_enabled=False) as visitor:
        sign_in(visitor, world)
        visitor.page.click("nav >> text=Jobs")
        assert visitor.page.is_visible("h1:text('Jobs')")
        visitor.page.click("text=Sign out")
        assert visitor.page.is_visible("h1:text('Sign in')")
        assert not visitor.wrong
