"""How things look: numbers of four digits, curves in a line, and a terminal that no user's text can command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from groundwork.commands import draw, reports
from ssl_core.context import MemoryContext
from ssl_core.evaluation import report
from ssl_core.evaluation_spec import Arm, ReportPoint, ReportSpec


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█"), ([8, 1], "█▁"), ([3, 3, 3], "▁▁▁"), ([], ""),
        ([1, "nan", 2], "▁×█"), (["nan", "inf"], "××"), ([1, "inf", 0], "█×▁"),
    ],
)  # fmt: skip
def test_a_curve_in_a_line(values: list[float | str], shown: str) -> None:
    assert draw.sparkline(values) == shown


def test_a_long_curve_is_thinned_to_the_mean_of_each_stretch() -> None:
    line = draw.sparkline([float(step) for step in range(1000)], 10)
    assert len(line) == 10 and line[0] == "▁" and line[-1] == "█" and list(line) == sorted(line)


@pytest.mark.parametrize(
    ("given", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (13_400_211, "13.4 MB"), (10**15, "1.0 PB"),
     (10**20, "100000.0 PB"), (None, "-")],
)  # fmt: skip
def test_sizes(given: float | None, shown: str) -> None:
    assert draw.size(given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [(3, "3"), (3.14159, "3.142"), (1e-5, "1e-05"), (502_616_064, "502,616,064"), (math.nan, "nan"), (math.inf, "inf"),
     (None, "-")],
)  # fmt: skip
def test_numbers(given: float | None, shown: str) -> None:
    assert draw.number(given) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (59.6, "1 min 0 s"), (250, "4 min 10 s"), (7260, "2 h 1 min"), (None, "-")]
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert draw.duration(seconds) == shown


def test_what_is_piped_on_is_whole_plain_and_without_blanks_at_line_ends(capsys: pytest.CaptureFixture[str]) -> None:
    name = "n" * 300
    draw.show(draw.table(("id", "name", "rows>"), [("ds_1", name, 3), ("ds_22", "[bold]x[/bold]", None)]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and name in lines[1] and "[bold]x[/bold]" in lines[2]
    assert all(line == line.rstrip() for line in lines)


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    draw.show(draw.table(("id",), [], "nothing here"), None)
    assert capsys.readouterr().out == "nothing here\n"


def test_a_terminal_is_not_commanded_by_what_users_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b]0;title\x07b\x1b[2Jc\rd\u202ee"
    draw.show(draw.table(("name",), [(evil,)]), draw.facts({"name": evil}), draw.plain(evil), draw.heading("x"))
    out = capsys.readouterr().out
    assert not set(out) & {"\x1b", "\x07", "\r", "\u202e"} and "title" in out


def test_a_line_is_clipped_to_its_length() -> None:
    assert draw.clip("a  b\nc", 10) == "a b c"
    assert draw.clip("x" * 50, 10) == "x" * 9 + "…"
    assert draw.bar(0.5, 4) == "██░░" and draw.bar(7, 2) == "██"


def test_a_report_is_a_table_of_arms_by_numbers_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores: dict[Arm, float] = {"probe": 0.62, "scratch": 0.3}
    points = [
        ReportPoint(arm=arm, labels=each, rows=each or 400, seed=seed, score=start + 0.1 * at, minutes=1, job="job_a")
        for arm, start in scores.items()
        for at, each in enumerate((10, 40, None))
        for seed in range(2)
    ]
    spec = ReportSpec(title="t", metric="accuracy", points=points, facts={"Model": "mdl_x"})
    report.run(spec, MemoryContext(tmp_path))
    draw.show(*reports.drawn(json.loads((tmp_path / "artifact" / "report.json").read_text())))
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["way", "to", "learn", "10", "40", "all"] in lines
    assert ["probe", "0.62", "0.72", "0.82"] in lines and ["scratch", "0.3", "0.4", "0.5"] in lines
    assert "mdl_x" in out
