"""A real Chromium at a real server: it tells of every request to another host and of every console error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
IMAGES = Path(__file__).parents[2] / "docs" / "images"
_SERIOUS = {"serious", "critical"}
_RUN_AXE = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations.map((each) =>
    ({id: each.id, impact: each.impact,
      nodes: each.nodes.map((node) => node.target.join(' ') + ': ' + node.failureSummary)}))"""


def chromium() -> str:
    """Of `$CHROMIUM` or from PATH; skips the test where there is none."""
    named = os.environ.get("CHROMIUM", "")
    found = named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        pytest.skip("no Chromium on PATH (chromium, chromium-browser, google-chrome) and $CHROMIUM is not set")
    pytest.importorskip("playwright", reason="the package playwright is not installed")
    return found


class Visitor:
    """A browser's tab, and what it should never have seen."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.wrong: list[str] = []
        page.on("console", lambda told: self._note(told.type in ("error", "warning"), f"console: {told.text}"))
        page.on("pageerror", lambda error: self._note(True, f"script: {error}"))
        page.on("request", lambda asked: self._note(not self._ours(asked.url), f"outside: {asked.url}"))
        page.on("response", lambda reply: self._note(reply.status >= 500, f"{reply.status}: {reply.url}"))

    def go(self, path: str) -> None:
        """Open a page of the server."""
        self.page.goto(self.url + path)

    def check(self, name: str = "") -> None:
        """Nothing wrong so far, nothing serious for axe; a picture for the documentation where it has a name."""
        assert not self.wrong, self.wrong
        # Evaluated from outside of the page: its own policy lets no script in.
        self.page.evaluate(AXE.read_text())
        found = [each for each in self.page.evaluate(_RUN_AXE) if each["impact"] in _SERIOUS]
        assert not found, found
        if name and os.environ.get("SCREENSHOTS"):
            IMAGES.mkdir(exist_ok=True)
            self.page.screenshot(path=str(IMAGES / f"{name}.png"))

    def _ours(self, url: str) -> bool:
        return url.startswith((f"{self.url}/", "data:", f"blob:{self.url}/"))

    def _note(self, bad: bool, words: str) -> None:
        if bad:
            self.wrong.append(words)


@contextmanager
def visiting(url: str, **options: Any) -> Iterator[Visitor]:
    """A fresh browser with one tab."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=FLAGS)
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(60_000)
        yield Visitor(context.new_page(), url)
        browser.close()
