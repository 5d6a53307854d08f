"""The report of a label-efficiency job: the same points give the same bytes, and nothing outside is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path

from PIL import Image

from ssl_core.context import MemoryContext
from ssl_core.durable import fault_of
from ssl_core.evaluation import report
from ssl_core.evaluation_spec import Arm, ReportPoint, ReportSpec

SCORES: dict[Arm, float] = {"full": 0.6, "probe": 0.62, "scratch": 0.3, "classical": 0.45}


def spec() -> ReportSpec:
    points = [
        ReportPoint(arm=arm, labels=labels, rows=labels or 400, seed=seed, score=start + 0.1 * at + 0.01 * seed,
                    minutes=1.5, job="job_a")
        for arm, start in SCORES.items()
        for at, labels in enumerate((10, 40, None))
        for seed in range(2)
    ]  # fmt: skip
    return ReportSpec(title="Label efficiency", metric="accuracy", points=points, facts={"Model": "<b>mdl_x</b>"})


def made(folder: Path) -> Path:
    folder.mkdir()
    verdict = report.run(spec(), MemoryContext(folder))
    assert verdict["status"] == "succeeded"
    return folder / "artifact"


def test_it_leaves_the_numbers_the_picture_and_the_page(tmp_path: Path) -> None:
    artifact = made(tmp_path / "a")
    assert fault_of(artifact) is None
    told = json.loads((artifact / "report.json").read_text())
    assert set(told["curves"]) == set(SCORES)
    assert {row["arm"] for row in told["labels_saved"]} == {"full", "probe"}
    assert Image.open(artifact / "curve.png").size[0] > 800
    page = (artifact / "report.html").read_text()
    assert "Labels saved at equal score" in page and "labels saved" in page
    assert "&lt;b&gt;mdl_x" in page, "what users name is text, not markup"


def test_the_page_asks_nothing_of_any_host(tmp_path: Path) -> None:
    page = (made(tmp_path / "a") / "report.html").read_text()
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["'](?!#)""", page.replace("xlink:href", "href").replace('href="#', ""))


def test_the_same_points_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a"), made(tmp_path / "b")
    for name in ("report.json", "report.html", "curve.svg", "curve.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
