"""An engine without torch that keeps docs/contracts.md §2: `python -m fake_engine DIR`.

The spec's metadata says how it behaves: steps, delay, mode (see `misbehave`), checkpoint_every, at.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Run:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.order = json.loads((folder / "run.json").read_text())
        self.plan = {"steps": "10", "delay": "0.02", "mode": "", "checkpoint_every": "5", "at": "3"}
        self.plan |= self.order["spec"].get("metadata", {})
        self.events = (folder / "events.jsonl").open("a", buffering=1)
        self.seq = 0
        self.terminated = False

    def emit(self, type: str, **fields: Any) -> None:
        self.seq += 1
        print(json.dumps({"type": type, "seq": self.seq, "time": time.time(), **fields}), file=self.events)

    def stop_word(self) -> str | None:
        stop = self.folder / "stop"
        if stop.exists():
            return stop.read_text()
        return "drain" if self.terminated else None

    def commit(self, name: str, files: dict[str, str]) -> None:
        part = self.folder / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        listed = []
        for path, text in files.items():
            (part / path).write_text(text)
            listed.append({"path": path, "size": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()})
        (part / "manifest.json").write_text(json.dumps({"step": 0, "files": listed, "metrics": {}}))
        part.rename(self.folder / name)

    def checkpoint(self, step: int) -> None:
        name = f"checkpoints/step-{step:09d}"
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        if not (self.folder / name).exists():
            self.commit(name, {"state.json": json.dumps({"step": step})})
            self.emit("checkpoint", step=step, path=name)

    def result(self, **verdict: Any) -> None:
        (self.folder / "result.part").write_text(json.dumps(verdict))
        (self.folder / "result.part").rename(self.folder / "result.json")

    def resumed_step(self) -> int:
        for folder in self.order["checkpoints"]:
            return int(json.loads((Path(folder) / "state.json").read_text())["step"])
        return 0


def misbehave(run: Run, step: int) -> None:
    first = not run.order["checkpoints"]
    if step != int(run.plan["at"]) or not first:
        return
    match run.plan["mode"]:
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
        case "hang":
            faulthandler.register(signal.SIGUSR1)
            time.sleep(600)
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        case "malformed":
            run.events.write("no json at all\n")
            run.events.write('{"type": "metrics", "seq": 1, "time": 1, "step": 1, "values": {}}\n')
            run.events.write('{"type": "message", "note": "' + "x" * 100_000 + '"}\n')
            run.seq += 1
        case "stray":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        case "flood":
            os.write(1, b"\xff\x00 not text\n" * 300_000)


def main(folder: Path) -> None:
    run = Run(folder)
    signal.signal(signal.SIGTERM, lambda *_: setattr(run, "terminated", True))
    print("fake engine in", folder, "sees", sorted(os.environ), flush=True)
    if run.plan["mode"] == "user_error":
        error = {"class": "user", "code": "bad_rate", "message": "learning_rate is too high", "param": "learning_rate"}
        return run.result(status="failed", error=error)
    run.emit("stage", stage="training")
    for step in range(run.resumed_step() + 1, int(run.plan["steps"]) + 1):
        misbehave(run, step)
        run.emit("metrics", step=step, values={"loss": 1 / step})
        time.sleep(float(run.plan["delay"]))
        word = run.stop_word()
        if word or step % int(run.plan["checkpoint_every"]) == 0:
            run.checkpoint(step)
        if word:
            return run.result(status="stopped", reason=word, step=step)
    (folder / "samples").mkdir()
    (folder / "samples" / "fill.txt").write_text("a text")
    run.emit("sample", step=step, name="fill", path="samples/fill.txt", media_type="text/plain")
    folders = {key: Path(value) for key, value in run.order["datasets"].items()}
    inputs = {key: sorted(p.name for p in folder.iterdir()) for key, folder in folders.items()}
    run.commit("artifact", {"config.json": "{}", "model.safetensors": "weights"})
    if run.plan["mode"] == "bad_artifact":
        (folder / "artifact" / "model.safetensors").unlink()
    run.result(status="succeeded", metrics={"loss": 0.1}, summary={"inputs": inputs})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
