"""The table of `benchmarks.embed`. Imports nothing heavy."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

Json = dict[str, Any]
GOALS = {("ours fp32", "naive"): 2.0, ("ours int8", "naive"): 3.0, ("ours fp32", "infinity"): 2.0,
         ("ours int8", "infinity"): 2.0}  # fmt: skip
OVERHEAD = 0.2
"""Most of CPU time over that of the model alone."""


def write(out: Path, found: Json) -> Path:
    """`embed.json` and `embed.md` in `out`; the path of the table."""
    out.mkdir(parents=True, exist_ok=True)
    found = {**found, "summary": summary(found)}
    (out / "embed.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "embed.md").write_text(table(found))
    return out / "embed.md"


def summary(found: Json) -> Json:
    """Medians of each side, ratios inside the rounds, and CPU over the model alone."""
    sides: Json = found["sides"]
    medians = {
        name: {key: statistics.median(turn[key] for turn in turns) for key in turns[0]} for name, turns in sides.items()
    }
    ratios = {}
    for (us, them), goal in GOALS.items():
        if them not in sides:
            continue
        each = [a["per_second"] / b["per_second"] for a, b in zip(sides[us], sides[them], strict=True)]
        tail = medians[us]["p99_ms"] <= medians[them]["p99_ms"]
        ratios[f"{us} / {them}"] = {
            "median": round(statistics.median(each), 2), "min": round(min(each), 2), "max": round(max(each), 2),
            "goal": goal, "p99_no_worse": tail, "met": statistics.median(each) >= goal and tail,
        }  # fmt: skip
    over = {
        name: round(medians[f"ours {name}"]["cpu_ms"] / bare - 1, 3) for name, bare in found["bare_cpu_ms"].items()
    }
    return {"medians": medians, "ratios": ratios, "cpu_over_bare": over}


def table(found: Json) -> str:
    """Markdown."""
    told: Json = found["summary"]
    lines = [
        "# Embedding over HTTP", "",
        f"{found['date']}, `make bench-embed`: {found['clients']} clients that ask for one sentence at a time, "
        f"{found['rounds']} rounds of {found['seconds']:g} s a server, turn about; one thread, each whole server on "
        f"one core (ours: API and inference), clients on another; 1-minute load {found['load']}. A BERT of 6 layers, "
        "384 wide, random weights, the same in all; sentences of 4 to 40 words.", "",
        "| server | sentences/s | p50 ms | p99 ms | CPU ms a sentence | least cosine to naive |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, row in told["medians"].items():
        lines.append(
            f"| {name} | {row['per_second']:.1f} | {row['p50_ms']:.0f} | {row['p99_ms']:.0f} | {row['cpu_ms']:.2f} | "
            f"{found['cosines'][name]:.5f} |"
        )
    lines += ["", "| ratio of sentences/s | median (least to greatest) | goal | p99 no worse | met |",
              "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, row in told["ratios"].items():
        spread = f"**{row['median']:.2f}** ({row['min']:.2f} to {row['max']:.2f})"
        words = ["yes" if row[key] else "no" for key in ("p99_no_worse", "met")]
        lines.append(f"| {name} | {spread} | {row['goal']:g} | {words[0]} | {words[1]} |")
    lines += ["", "| | CPU ms, model alone in batches of 32 | CPU ms, served | over | goal |",
              "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, bare in found["bare_cpu_ms"].items():
        over = told["cpu_over_bare"][name]
        lines.append(f"| {name} | {bare:.2f} | {told['medians'][f'ours {name}']['cpu_ms']:.2f} | {over:+.0%} | "
                     f"{OVERHEAD:.0%} at most |")  # fmt: skip
    peers = "; ".join(
        f"{side}: " + ", ".join(f"{name} {version}" for name, version in each.items())
        for side, each in found["peers"].items()
    )
    return "\n".join([*lines, "", f"Peers: {peers}."]) + "\n"
