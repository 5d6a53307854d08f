"""The report of a label-efficiency job: numbers as JSON, the picture, one HTML page. Imports without torch."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssl_core.context import RunContext
from ssl_core.durable import committed, write_json
from ssl_core.evaluation.curves import CurvePoint, Saved, curves, savings
from ssl_core.evaluation_spec import ARM_WORDS, ReportSpec

_COLOURS = {
    "full": "#0b6e4f", "lora": "#d0661b", "probe": "#3a86c8", "knn": "#7a9e9f", "self_training": "#1d3557",
    "scratch": "#b23a48", "classical": "#8d6a00", "public": "#6a4c93",
}  # fmt: skip
_PRETRAINED = ("full", "lora", "probe", "knn", "self_training", "public")
_PLAIN = ("scratch", "classical")


def run(spec: ReportSpec, context: RunContext) -> dict[str, Any]:
    """Write `report.json`, `curve.svg`, `curve.png` and `report.html` as the artifact; returns the verdict."""
    found = curves(spec.points)
    saved = [
        row
        for arm in _PRETRAINED
        for other in _PLAIN
        if arm in found and other in found
        for row in savings(found, arm, other)
    ]
    told = {
        "metric": spec.metric,
        "facts": spec.facts,
        "curves": {arm: [_told(point) for point in points] for arm, points in found.items()},
        "labels_saved": [asdict(row) for row in saved],
        "points": [point.model_dump(mode="json") for point in spec.points],
    }
    with committed(context.workdir / "artifact") as folder:
        write_json(folder / "report.json", told)
        svg = _picture(found, spec.metric, folder)
        (folder / "report.html").write_text(_page(spec, found, saved, svg), encoding="utf-8")
    return {"status": "succeeded", "metrics": _metrics(found, saved), "summary": {}}


def _told(point: CurvePoint) -> dict[str, Any]:
    return {**asdict(point), "mean": point.mean}


def _metrics(found: dict[str, list[CurvePoint]], saved: list[Saved]) -> dict[str, float]:
    """What a list of jobs can show: the mean of each point, and the labels saved where they could be told."""
    numbers = {f"{arm}/{_count(point.labels)}": point.mean for arm, points in found.items() for point in points}
    for row in saved:
        if row.saved is not None:
            numbers[f"labels_saved/{row.arm}_over_{row.other}/{_count(row.labels)}"] = row.saved
    return numbers


def _count(labels: int | None) -> str:
    return "all" if labels is None else str(labels)


def _picture(found: dict[str, list[CurvePoint]], metric: str, folder: Path) -> str:
    """Write the curve as SVG and PNG; returns the SVG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, ScalarFormatter

    # A fixed salt and no date: the same points give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "groundwork", "svg.fonttype": "path", "font.size": 10}):
        figure = Figure(figsize=(7.5, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for arm, points in found.items():
            rows, means = [point.rows for point in points], [point.mean for point in points]
            axes.plot(rows, means, marker="o", color=_COLOURS[arm], label=ARM_WORDS[arm])
            sure = [(p.rows, p.low, p.high) for p in points if p.low is not None and p.high is not None]
            if sure:
                at, low, high = ([each[side] for each in sure] for side in range(3))
                axes.fill_between(at, low, high, color=_COLOURS[arm], alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        ticks = sorted({round(point.rows) for points in found.values() for point in points})
        axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("labelled rows")
        axes.set_ylabel(f"{metric} on the test rows")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(folder / "curve.png", dpi=150, metadata={"Software": None})
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    (folder / "curve.svg").write_text(svg, encoding="utf-8")
    return svg[svg.index("<svg") :]


def _page(spec: ReportSpec, found: dict[str, list[CurvePoint]], saved: list[Saved], svg: str) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent / "templates"
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    rows = sorted({(point.rows, _count(point.labels)) for points in found.values() for point in points})
    counts = list(dict.fromkeys(count for _, count in rows))
    cells = {arm: {_count(point.labels): point for point in points} for arm, points in found.items()}
    return environment.get_template("label_efficiency.html").render(
        title=spec.title, metric=spec.metric, facts=spec.facts, counts=counts, cells=cells, words=ARM_WORDS,
        saved=saved, sentences=[sentence(row) for row in saved if row.saved is not None and row.saved > 0],
        svg=Markup(svg), seeds=max(len(point.scores) for points in found.values() for point in points),
    )  # fmt: skip


def sentence(row: Saved) -> str:
    """A saving in words."""
    assert row.needed is not None and row.saved is not None
    words = f"With {row.rows:,.0f} labelled rows, {ARM_WORDS[row.arm]} scores {row.score:.3f}; {ARM_WORDS[row.other]} "
    words += f"needs about {row.needed:,.0f} for that: {row.saved:,.0f} labels saved"
    if row.low is not None and row.high is not None:
        return f"{words} (95 % interval {row.low:,.0f} to {row.high:,.0f})."
    if row.low is not None:
        return f"{words} (95 % interval from {row.low:,.0f}; its other end lies beyond what was measured)."
    return f"{words}."
