"""An engine without torch whose result depends on every step: `python -m tests.faults.engine DIR`.

Its weights are a chain of digests over the steps, so a lost, repeated or reordered step shows in the last byte. Each
step is also written to the file that the spec's metadata names as `trace`: two attempts that lived at once show there.
Jobs other than training go to the real engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.worker.fake_engine import Run


def chain(steps: int) -> list[str]:
    """The state after 0, 1, ... `steps` steps."""
    states = ["start"]
    for step in range(1, steps + 1):
        states.append(hashlib.sha256(f"{states[-1]} {step}".encode()).hexdigest())
    return states


def loss(state: str) -> float:
    """What the step that led to `state` reports."""
    return int(state[:8], 16) / 2**32


def trace(run: Run, step: int) -> None:
    """One line: run folder, pid, step, seconds of the machine's clock."""
    if path := run.plan.get("trace"):
        line = f"{run.folder.name} {os.getpid()} {step} {time.monotonic():.3f}\n"
        with open(path, "a", encoding="ascii") as file:
            file.write(line)


def misbehave(run: Run, step: int) -> None:
    """What a poisonous or hostile run does at step `at`, on every attempt."""
    if step != int(run.plan["at"]):
        return
    match run.plan["mode"]:
        case "abort":
            signal.signal(signal.SIGABRT, signal.SIG_DFL)
            os.abort()
        case "fork":
            # A double fork into another session with the signal ignored: what a process group kill does not reach.
            code = "import os,signal,time; os.fork() and os._exit(0); os.setsid(); time.sleep(600)"
            for _ in range(8):
                subprocess.Popen([sys.executable, "-c", code])
            os.abort()
        case "files":
            for n in range(5_000):
                (run.folder / f"litter-{n}").write_bytes(b"x")
        case "memory":
            held = []
            while True:
                held.append(bytearray(b"x") * (16 << 20))  # written, not only reserved
        case "line":
            os.write(1, b"x" * 1_000_000 + b"\n\x00\xff\xfe\n")


def summary(spec: dict[str, Any]) -> dict[str, Any]:
    """`config.json` of the model that this spec asks for."""
    shape = {name: spec[name] for name in ("modality", "backbone", "objective")}
    return {
        "format": "groundwork-1", "kind": "encoder", **shape, "facts": {}, "task": None, "classes": [],
        "embed_dim": 256, "parameters": 10, "max_length": 128,
    }  # fmt: skip


def resumed(run: Run) -> tuple[int, str]:
    """Step and state of the newest checkpoint that is whole."""
    for folder in run.order["checkpoints"]:
        try:
            found = json.loads((Path(folder) / "state.json").read_text())
            return int(found["step"]), str(found["state"])
        except (OSError, ValueError):
            continue
    return 0, "start"


def save(run: Run, step: int, state: str) -> None:
    """A checkpoint, unless this attempt has one of this step."""
    name = f"checkpoints/step-{step:09d}"
    (run.folder / "checkpoints").mkdir(exist_ok=True)
    if not (run.folder / name).exists():
        files = {"state.json": json.dumps({"step": step, "state": state})}
        if "megabytes" in run.plan:
            files["ballast"] = "x" * (int(run.plan["megabytes"]) << 20)
        run.commit(name, files)
        run.emit("checkpoint", step=step, path=name)


def main(folder: Path) -> None:
    """Train by the order in `folder`."""
    run = Run(folder)
    signal.signal(signal.SIGTERM, lambda *_: setattr(run, "terminated", True))
    first, state = resumed(run)
    if first:
        run.emit("message", level="info", code="resumed", message=f"Resumed at step {first}.", step=first)
    trace(run, first)
    for step in range(first + 1, int(run.plan["steps"]) + 1):
        misbehave(run, step)
        state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
        run.emit("metrics", step=step, values={"loss": loss(state)})
        trace(run, step)
        time.sleep(float(run.plan["delay"]))
        word = run.stop_word()
        if word or step % int(run.plan["checkpoint_every"]) == 0:
            save(run, step, state)
        if word:
            return run.result(status="stopped", reason=word, step=step)
    config = summary(run.order["spec"])
    run.commit("artifact", {"config.json": json.dumps(config), "model.safetensors": state})
    run.result(status="succeeded", metrics={"loss": loss(state)}, summary=config)


if __name__ == "__main__":
    order = json.loads((Path(sys.argv[1]) / "run.json").read_text())
    if order["spec"]["type"] == "pretrain":
        main(Path(sys.argv[1]))
    else:
        from ssl_core.run import main as real

        sys.exit(real(sys.argv[1:]))
