"""The results file and its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.peers.rows import GPU_ROWS, MEMORY, ROWS

Json = dict[str, Any]
_HEAD = (
    "| Row | Against the peer | Wall ratio (min to max) | Processor ratio (min to max) | Goal | Met "
    "| Our recipe, wall / processor | Rounds |\n|---|---|---|---|---|---|---|---|\n"
)
_HEAD_GPU = (
    "| Row | Against the peer | Ratio (min to max) | Goal | Met | Our MFU | Our GPU memory | Rounds |\n"
    "|---|---|---|---|---|---|---|---|\n"
)
_FOOT = """
Each ratio is ours / the peer's rate inside one round (fp32 on both sides, the same settings, one thread), the median of
the rounds. The processor ratio divides by the process's own processor time, which a busy neighbour moves less. "Our
recipe" is the same shape with our recipe's precision, dropout and GELU on this machine. `Met` is told by both medians,
and is unsure where they disagree.
"""


_FOOT_GPU = """
Each ratio is our recipe (bf16, compiled) / the peer's rate inside one round, the median of the rounds. `Met` is told by
the wall. MFU is of our own steps: FLOPs counted from the matrix products that run, over the data sheet's dense peak.
"""


def write(out: Path, found: Json, device: str, gpu: bool = False) -> Path:
    """Put a row into `peers_cpu.json` or `peers_gpu.json`, in place of its older self; the path of the table beside it.

    A row without a title, a profile alone, joins its older self.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"peers_{'gpu' if gpu else 'cpu'}.json"
    kept: Json = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    kept["device"] = device
    older = kept["rows"].get(found["row"], {})
    kept["rows"][found["row"]] = {**(older if "title" not in found else {}), **found}
    path.write_text(json.dumps(kept, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(kept, gpu))
    return path.with_suffix(".md")


def table(kept: Json, gpu: bool = False) -> str:
    """Markdown of all rows, in the order of `ROWS`."""
    rows: Json = kept["rows"]
    listed = GPU_ROWS if gpu else ROWS
    lines = [line for row in listed if row.name in rows for line in (_gpu if gpu else _lines)(rows[row.name])]
    if MEMORY[2] in rows:
        lines += _memory(rows[MEMORY[2]])
    remarks = sorted({row["remark"] for row in rows.values() if row.get("remark")})
    notes = [f"- {row['title']}: {row['note']}" for row in rows.values() if row["note"]]
    days = " and ".join(sorted({row["date"] for row in rows.values() if "date" in row}))
    flag = "--gpu" if gpu else "--profile"
    command = f"python -m benchmarks.peers --peers PEERS --python PEERS_VENV/bin/python {flag}"
    own = f"peers_{'gpu' if gpu else 'cpu'}.json"
    measured = f"Measured on {days} by `{command}`; each side's own command is in {own}.\n\n"
    head = (
        f"# Us and the peers\n\nDevice: {kept['device']}.\n\n"
        + measured
        + "".join(f"{remark}\n\n" for remark in remarks)
    )
    told = [_profile(row) for row in rows.values() if row.get("profile")]
    profiles = ["", "## Where the time goes", "", *told] if told else []
    top, foot = (_HEAD_GPU, _FOOT_GPU) if gpu else (_HEAD, _FOOT)
    return head + top + "\n".join(lines) + "\n" + foot + "\n" + "\n".join(notes + profiles) + "\n"


def _gpu(row: Json) -> list[str]:
    if not row.get("sides"):
        return [f"| {row['title']} | - | - | - | not measured: {row.get('error') or 'no rounds'} | - | - | 0 |"]
    ours = row["sides"]["recipe"]
    memory = f"{ours['cuda_peak_mib']:.0f} of {row['sides']['default']['cuda_peak_mib']:.0f} MiB"
    lines = []
    for them, goal in zip(("default", "tuned"), row["goals"], strict=True):
        ratio = row["ratios"][f"recipe/{them}"]["wall"]
        met = "yes" if ratio["median"] >= goal else "no"
        against = "as it comes" if them == "default" else "tuned"
        lines.append(
            f"| {row['title']} | {against} | {_told(ratio)} | {goal:g} | {met} | {100 * ours['mfu']:.0f} % | {memory} "
            f"| {row['rounds']} |"
        )
    return lines


def _profile(row: Json) -> str:
    """The greatest shares of our time and of the peer's as it comes, in percent, and what a reader made of them."""
    told = [
        f"{name}: " + ", ".join(f"{kind} {100 * share:.0f}" for kind, share in list(row["profile"][side].items())[:7])
        for name, side in (("Ours", "ours"), ("Peer", "peer"))
    ]
    why = f" {row['why']}." if row.get("why") else ""
    return f"- {row['title']} (percent of a step). {'. '.join(told)}.{why}"


def _lines(row: Json) -> list[str]:
    if not row.get("sides"):
        why = "not measured: " + (row.get("missing") or row.get("error") or "no rounds")
        return [f"| {row['title']} | - | - | - | {row['goals'][0]:g} / {row['goals'][1]:g} | {why} | - | 0 |"]
    if not row["ratios"]:
        us = row["sides"]["ours"]
        told = f"{us['first_s']:.2f} s, then {1000 * us['second_s']:.1f} ms"
        met = "yes" if us["value"] >= row["goals"][0] else "no"
        return [
            f"| {row['title']} | ourselves: {told} | {us['value']:.0f} | - | {row['goals'][0]:g} | {met} | - "
            f"| {row['rounds']} |"
        ]
    return [
        _line(row, them, goal) for them, goal in zip(("default", "tuned"), row["goals"], strict=True)
        if f"ours/{them}" in row["ratios"]
    ]  # fmt: skip


def _line(row: Json, them: str, goal: float) -> str:
    same, recipe = row["ratios"][f"ours/{them}"], row["ratios"].get(f"recipe/{them}")
    comes = f"{recipe['wall']['median']:.2f} / {recipe['cpu']['median']:.2f}" if recipe else "-"
    against = "as it comes" if them == "default" else "tuned"
    return (
        f"| {row['title']} | {against} | {_told(same['wall'])} | {_told(same['cpu'])} | {goal:g} | "
        f"{verdict(same, goal)} | {comes} | {row['rounds']} |"
    )


def verdict(ratio: Json, goal: float) -> str:
    """Whether a goal is met by both clocks."""
    reached = {ratio[clock]["median"] >= goal for clock in ("wall", "cpu")}
    return "unsure" if len(reached) > 1 else "yes" if True in reached else "no"


def _told(ratio: dict[str, float]) -> str:
    return f"**{ratio['median']:.2f}** ({ratio['min']:.2f} to {ratio['max']:.2f})"


def _memory(row: Json) -> list[str]:
    sides, goal = row.get("sides", {}), MEMORY[3]
    if "ours" not in sides or "default" not in sides:
        return []
    share = sides["ours"]["peak_rss_mib"] / sides["default"]["peak_rss_mib"]
    told = f"{sides['ours']['peak_rss_mib']:.0f} of {sides['default']['peak_rss_mib']:.0f} MiB"
    comes = f"{sides['recipe']['peak_rss_mib'] / sides['default']['peak_rss_mib']:.2f}"
    return [
        f"| {MEMORY[1]} | as it comes: {told} | **{share:.2f}** | - | {goal:g} at most | "
        f"{'yes' if share <= goal else 'no'} | {comes} | {row['rounds']} |"
    ]
