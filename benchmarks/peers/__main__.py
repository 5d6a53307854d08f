"""Us beside the peers, turn about, row by row.

    python -m benchmarks.peers --peers PEERS --python PEERS_VENV/bin/python [--rows mlm,mae] [--rounds 5] [--gpu]

`PEERS` is the folder of the peers' scripts, `--python` an interpreter that has the peers installed. In each round the
peer as it comes, we with the peer's settings, we with our recipe's, and the peer tuned run one after the other, and the
next round runs them backwards; ratios are taken inside a round. Rows join those already in the results file. `--gpu`
takes the rows for a GPU, where our recipe alone stands against the peer.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.engine import device_name
from benchmarks.peers.report import write
from benchmarks.peers.rows import BY_NAME, GPU_ROWS, ROWS, Json, Row
from worker.engine import ALLOCATOR

_TOKENIZERS = (("wp.json", "wordpiece"), ("bpe.json", "bpe"))
_VOCABULARY = 4096
_DATA_WAIT = 900
_KEPT = ("unit", "params", "precision", "versions", "first_s", "second_s", "compile_refused")
_Sides = dict[str, list[str]]


class Failed(Exception):
    """A side printed no result."""


def last_line(command: list[str], cwd: Path, options: argparse.Namespace) -> Json:
    """The JSON a command ends with. Raises Failed."""
    threads = str(options.threads)
    # Our side starts as the worker starts an engine; the peer as it comes.
    allocator = ALLOCATOR if "benchmarks.peers.ours" in command else {}
    environment = {**os.environ, **allocator, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=options.timeout
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"over {options.timeout} s: {Path(command[1]).name}") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        errors = done.stderr.strip().splitlines() or ["nothing printed"]
        raise Failed(f"{Path(command[1]).name}: exit {done.returncode}, {errors[-1][:300]}")
    found: Json = json.loads(lines[-1])
    return found


def make_data(options: argparse.Namespace, work: Path) -> Path:
    """The kit's synthetic data and its tokenizers, made by the kit's own code."""
    data: Path = options.data or work / "data"
    if not (data / "text.txt").exists():
        much = ["--lines", "20000", "--images", "2048"] if options.gpu else []
        subprocess.run([options.python, str(options.peers / "make_tiny_data.py"), str(data), *much], check=True)
    for file, kind in _TOKENIZERS:
        if not (data / file).exists():
            call = f"import _hftext as X; X.build_tokenizer({str(data / file)!r}, {str(data / 'text.txt')!r}, "
            code = call + f"{_VOCABULARY}, {kind!r})"
            subprocess.run([options.python, "-c", code], check=True, cwd=options.peers, timeout=_DATA_WAIT)
    return data


def sides_of(row: Row, data: Path, work: Path, options: argparse.Namespace) -> _Sides:
    """The commands of a row by side."""
    numbers = ["--threads", str(options.threads)]
    for name in ("batch", "steps", "warmup"):
        numbers += [f"--{name}", str(getattr(row, name))]
    us = [sys.executable, "-m", "benchmarks.peers.ours", row.name, "--data", str(data), "--work", str(work), *numbers]
    if not row.script:
        return {"ours": us}
    peer = [options.python, str(options.peers / row.script), str(data / row.data), *numbers, *row.flags]
    if row.data == "text.txt":
        peer += ["--tokenizer", str(data / ("bpe.json" if row.script == "hf_clm.py" else "wp.json"))]
    sides = {"default": peer} if row.gpu else {"default": peer, "ours": us}
    if row.ours.get("part") != "loader":
        sides["recipe"] = [*us, "--recipe"]
    if row.tuned:
        sides["tuned"] = peer + list(row.tuned)
    return sides


def compare(row: Row, sides: _Sides, options: argparse.Namespace) -> Json:
    """All rounds of a row; what stopped it where a side fails."""
    rounds: list[dict[str, Json]] = []
    found: Json = {"row": row.name, "title": row.title, "goals": list(row.goals), "note": row.note}
    found |= {"batch": row.batch, "steps_timed": row.steps - row.warmup, "threads": options.threads}
    found["date"], found["commands"] = date.today().isoformat(), {n: _shown(c) for n, c in sides.items()}
    if row.ours.get("objective", {}).get("name") not in known_objectives():
        return found | {"missing": f"no objective {row.ours['objective']['name']} yet"}
    try:
        for number in range(options.rounds):
            order = list(sides) if number % 2 == 0 else list(reversed(sides))
            rounds.append({side: last_line(sides[side], Path.cwd(), options) for side in order})
            told = "  ".join(f"{side} {rounds[-1][side]['value']:.4g}" for side in sides)
            print(f"{row.name} {number + 1}/{options.rounds}: {told}", file=sys.stderr, flush=True)
    except Failed as error:
        found["error"] = str(error)
    return found | summary(rounds, sides)


def profiled(row: Row, sides: _Sides, options: argparse.Namespace) -> Json:
    """Where the time of a row goes for us and for the peer, one more run of each."""
    peer = [options.python, str(Path(__file__).with_name("shares.py")), *sides["default"][1:]]
    ours = last_line([*sides["ours"], "--profile"], Path.cwd(), options)
    return {
        "row": row.name,
        "profile": {"ours": ours["shares"], "peer": last_line(peer, Path.cwd(), options)["shares"]},
    }


def _shown(command: list[str]) -> str:
    """A command without this machine's folders."""
    return shlex.join(Path(word).name if word.startswith("/") else word for word in command[1:])


def known_objectives() -> set[str]:
    """By name."""
    from ssl_core.objectives import OBJECTIVES

    return set(OBJECTIVES)


def rate(result: Json, clock: str) -> float:
    """Of one run by `wall` or `cpu` time; a peer tells its processor seconds instead of the rate."""
    if clock == "wall":
        return float(result["value"])
    return float(result.get("cpu_value") or result["value"] * result["wall_s"] / max(1e-9, result["cpu_s"]))


def summary(rounds: list[dict[str, Json]], sides: _Sides) -> Json:
    """Medians of each side, and for each pair of sides the ratio's median, least and greatest by both clocks."""
    if not rounds:
        return {"rounds": 0}
    found: Json = {"rounds": len(rounds), "load": [round(min(_loads(rounds)), 1), round(max(_loads(rounds)), 1)]}
    found["sides"] = {
        side: {
            "value": statistics.median(r[side]["value"] for r in rounds),
            "peak_rss_mib": statistics.median(r[side]["peak_rss_mib"] for r in rounds),
            **{key: rounds[0][side][key] for key in _KEPT if key in rounds[0][side]},
            **{key: statistics.median(r[side][key] for r in rounds) for key in ("mfu", "cuda_peak_mib")
               if rounds[0][side].get(key) is not None},
        }
        for side in sides
    }  # fmt: skip
    found["ratios"] = {
        f"{us}/{them}": {
            clock: _spread([rate(r[us], clock) / rate(r[them], clock) for r in rounds]) for clock in ("wall", "cpu")
        }
        for us in ("ours", "recipe")
        for them in ("default", "tuned")
        if us in sides and them in sides
    }
    return found


def _loads(rounds: list[dict[str, Json]]) -> list[float]:
    return [float(result["loadavg_1m"]) for turn in rounds for result in turn.values()]


def _spread(values: list[float]) -> dict[str, float]:
    named = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in named.items()}


def arguments() -> argparse.Namespace:
    """From the command line; a wrong path is told at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder of the peers' scripts")
    parser.add_argument("--python", required=True, help="a Python that has the peers installed")
    parser.add_argument("--rows", help=f"of {', '.join(BY_NAME)}; default: all for the device")
    parser.add_argument("--gpu", action="store_true", help="the rows for a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="and where the time goes; alone with --rounds 0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one run of one side")
    parser.add_argument("--data", type=Path, help="the kit's data, where it is made already")
    parser.add_argument("--work", type=Path, help="keep ingested data here for the next call")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--remark", default="", help="kept with the rows: what else ran on the machine")
    options = parser.parse_args()
    known = [row.name for row in (GPU_ROWS if options.gpu else ROWS)]
    options.rows = options.rows.split(",") if options.rows else known
    wrong = sorted(set(options.rows) - set(known))
    if wrong:
        parser.error(f"--rows: {', '.join(wrong)} unknown{' with --gpu' * options.gpu}; known: {', '.join(known)}")
    needed = {BY_NAME[name].script for name in options.rows if BY_NAME[name].script}
    lost = sorted(script for script in needed if not (options.peers / script).is_file())
    if lost:
        parser.error(f"--peers: {options.peers} has no {', '.join(lost)}")
    options.peers = options.peers.resolve()
    return options


def main() -> int:
    """0 where every row was measured or has nothing to measure yet."""
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="groundwork-peers-") as name:
        work: Path = options.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        data = make_data(options, work).resolve()
        failed = 0
        for wanted in options.rows:
            row = BY_NAME[wanted]
            sides = sides_of(row, data, work.resolve(), options)
            found: dict[str, Any] = compare(row, sides, options) if options.rounds else {"row": row.name}
            if options.profile and "default" in sides:
                found |= profiled(row, sides, options)
            failed += "error" in found
            # After each row, so that an interrupted call keeps what it has.
            found |= {"remark": options.remark} if options.remark else {}
            table = write(options.out, found, device_name(options.gpu), options.gpu)
    print(table.read_text())
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
