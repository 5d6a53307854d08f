"""The site builds without a warning, asks no other host for anything, and knows what the program has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from docs._generate import metrics, objectives, settings
from ssl_core.objectives import OBJECTIVES, Objective
from tests.docs.pages import ROOT

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-4000:]
    return folder


class Fetched(HTMLParser):
    """What a browser fetches when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "audio", "video", "embed"):
            self.found.append(named.get("src") or "")
        if tag == "link" and named.get("rel") not in ("canonical", "prev", "next", "edit"):
            self.found.append(named.get("href") or "")


@pytest.mark.slow
def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        reader = Fetched()
        reader.feed(page.read_text(encoding="utf-8"))
        assert not [each for each in reader.found if re.match(r"(https?:)?//", each)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style


@pytest.mark.slow
def test_every_objective_and_every_route_has_its_place(site: Path) -> None:
    assert {page.stem for page in (site / "objectives").glob("*.html")} == {*OBJECTIVES, "index"}
    routes = (site / "reference" / "http" / "index.html").read_text(encoding="utf-8")
    assert "/v1/jobs/{job_id}/pause" in routes and "/internal/v1/claim" in routes
    assert (site / "index.html").exists() and not (site / "_generate").exists()


class Turned(Objective):
    """Tell how far a picture was turned."""

    name: Literal["turned"] = "turned"
    modalities: ClassVar[tuple[str, ...]] = ("image",)
    views: ClassVar[tuple[str, ...]] = ("plain",)
    paper: ClassVar[str] = "RotNet, Gidaris et al. 2018, https://arxiv.org/abs/1803.07728"


def test_a_new_objective_gets_a_page_by_its_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "turned", Turned)
    made = objectives.pages(ROOT)
    assert "<https://arxiv.org/abs/1803.07728>" in made["objectives/turned.md"]
    assert "[`turned`](turned.md)" in made["objectives/index.md"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objectives_file_explains_it(name: str) -> None:
    """How it works, its loss as a formula, when to use it, its paper: all in the one file."""
    made = objectives.page(OBJECTIVES[name], RESULTS)
    for heading in ("## The loss", "## When to use it", "## Hyperparameters"):
        assert heading in made, f"ssl_core/objectives/{name}.py: its docstring says nothing for {heading!r}"
    formula = made.partition("## The loss")[2].partition("## When to use it")[0]
    assert re.search(r"^    \w.* = ", formula, re.MULTILINE), "the loss is told in words alone"
    assert re.search(r"<https://\S+>", made)


def test_what_was_measured_is_told_with_its_file() -> None:
    simclr = objectives.page(OBJECTIVES["simclr"], RESULTS)
    assert "`objectives_image_text.md`" in simclr and "`few_labels_fsdd.json`" in simclr and "0.943" in simclr


def test_settings_and_metrics_are_those_of_the_program() -> None:
    variables = settings.pages()["reference/settings.md"]
    assert "| `GROUNDWORK_LEASE_SECONDS` | number, > 0 | `120` |" in variables
    assert "| `GROUNDWORK_WORKER_TOKEN` |" in variables and "required" in variables
    told = metrics.pages()["reference/metrics.md"]
    assert "`groundwork_attempts_total`" in told and "`groundwork_inference_waiting_tokens`" in told
