"""Embedding over HTTP: us beside the server people write first and beside infinity, turn about.

    python -m benchmarks.embed --peers PEERS --python PEERS_VENV/bin/python [--infinity INFINITY_VENV/bin/infinity_emb]

All serve one and the same BERT-shaped model of random weights (the kit's `make-model`; we import it) with one thread,
each whole server on one core; the clients are on another. In each round every server is asked by the same clients, one
server after the other, and the next round runs them backwards; ratios are taken inside a round. We are asked through
the API with a key, so authentication, limits, logs and both processes are in our figures.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.api.load import Line, Seen, closed_loop, wire
from benchmarks.api.server import Server, free_port, on_core, started, used
from benchmarks.api.world import World, world
from benchmarks.embed_report import write
from benchmarks.engine import engine

SENTENCES, WORDS = 512, (4, 40)
_OFFLINE = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
}  # fmt: skip
Json = dict[str, Any]


@dataclass
class Side:
    """A server under load: where it listens, its processes, and how a sentence is asked for."""

    name: str
    port: int
    pids: list[int]
    path: str
    fields: Json
    key: str = ""
    input_name: str = "input"
    turns: list[Json] = field(default_factory=list)

    def request(self, sentence: str) -> bytes:
        """As it goes over the wire."""
        return wire("POST", self.path, self.key, {**self.fields, self.input_name: sentence if self.key else [sentence]})

    def vector(self, body: bytes) -> NDArray[np.float32]:
        """Of the reply to one sentence."""
        found = json.loads(body)
        return np.asarray(found[0] if isinstance(found, list) else found["data"][0]["embedding"], dtype=np.float32)

    def cpu(self) -> float:
        """Seconds of all its processes so far."""
        return sum(used(Server(pid, 0)).server for pid in self.pids)


def main() -> int:
    """See the top of the file."""
    options = arguments()
    sys.path.insert(0, str(options.peers))
    with ExitStack() as stack:
        cores = options.cores
        os.sched_setaffinity(0, set(cores))
        made = stack.enter_context(world("sqlite", 10, 1.0, cores))
        kit = made.folder / "kit"
        sentences = make_model(options, kit)
        sides = [stack.enter_context(side) for side in servers(options, made, kit)]
        os.sched_setaffinity(0, {cores[1]})
        vectors = {side.name: asyncio.run(all_vectors(side, sentences[:64])) for side in sides}
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else list(reversed(sides)):
                side.turns.append(turn(side, sentences, options))
                print(f"round {number + 1}: {side.name} {json.dumps(side.turns[-1])}", file=sys.stderr, flush=True)
        bare = {name: bare_cpu(made.folder / "model", sentences, name, cores[0]) for name in ("fp32", "int8")}
    found: Json = {
        "sides": {side.name: side.turns for side in sides}, "bare_cpu_ms": bare, "cosines": cosines(vectors),
        "clients": options.clients, "seconds": options.seconds, "load": round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d"), "cores": len(os.sched_getaffinity(0)), "rounds": options.rounds,
        "peers": versions(options),
    }  # fmt: skip
    print(write(options.out, found).read_text())
    return 0


def make_model(options: argparse.Namespace, kit: Path) -> list[str]:
    """The kit's text and model in `kit`, ours imported from it beside; the sentences that are asked for."""
    kit.mkdir()
    data = [sys.executable, str(options.peers / "make_tiny_data.py"), str(kit), "--lines", "4000"]
    subprocess.run([*data, "--images", "1", "--wavs", "1"], check=True, stdout=subprocess.DEVNULL)
    command = [options.python, str(options.peers / "st_embed.py"), "make-model", "--model", str(kit / "minibert")]
    subprocess.run([*command, "--text", str(kit / "text.txt")], check=True, stdout=subprocess.DEVNULL)
    _import(kit / "minibert", kit.parent)
    drawn: list[str] = importlib.import_module("st_embed").sentences(str(kit / "text.txt"), SENTENCES, 0, *WORDS)
    return drawn


def _import(public: Path, folder: Path) -> None:
    """The public folder as a model of ours, `folder/model`."""
    archive = folder / "minibert.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for file in sorted(each for each in public.rglob("*") if each.is_file()):
            out.write(file, file.relative_to(public))
    spec = {"type": "import", "upload": "imp_a", "filename": archive.name}
    order = {"spec": spec, "datasets": {"imp_a": str(archive)}, "cache": str(folder / "cache")}
    (engine(folder / "imported", order) / "artifact").rename(folder / "model")


def servers(options: argparse.Namespace, made: World, kit: Path) -> Iterator[Any]:
    """Of each side, what starts it and gives its `Side`; ours are two sides of one server."""
    script, model = str(options.peers / "st_embed.py"), str(kit / "minibert")
    yield _peer("naive", options, [options.python, script, "serve", "--model", model, "--threads", "1"], "/embed")
    if options.infinity:
        command = [options.python, script, "serve-infinity", "--infinity", options.infinity, "--model", model]
        yield _peer("infinity", options, command, "/embeddings")
    for precision, server in zip(("fp32", "int8"), _ours(made), strict=True):
        yield server_side(precision, server)


@contextmanager
def server_side(precision: str, server: Any) -> Iterator[Side]:
    """Ours, asked with that precision."""
    with server as (port, pids, key, model):
        yield Side(f"ours {precision}", port, pids, "/v1/embeddings", {"model": model, "precision": precision}, key)


@contextmanager
def _peer(name: str, options: argparse.Namespace, command: list[str], path: str) -> Iterator[Side]:
    port = free_port()
    with on_core(options.cores[0]):
        log = Path(os.devnull)
        environment = {**_OFFLINE, "PYTHONPATH": str(options.peers)}
        with started([*command, "--port", str(port)], port, options.cores[0], environment, log) as server:
            fields = {"model": "minibert"} if name == "infinity" else {}
            side = Side(name, port, [server.pid], path, fields, input_name="inputs" if name == "naive" else "input")
            yield side


def _ours(made: World) -> Iterator[Any]:
    shared: list[Any] = []

    @contextmanager
    def begun() -> Iterator[Any]:
        from tests.app import registered
        from tests.inference_role import free_url, start_role, stop_role

        url = free_url()
        model = registered.model(made.platform, made.projects[0], made.folder / "model")
        with on_core(made.cores[0]), made.api(INFERENCE_URL=url) as server:
            role = start_role(f"http://127.0.0.1:{server.port}", url, made.folder, inference_threads=1)
            try:
                shared.append((server.port, [server.pid, role.pid], made.keys[0], model))
                yield shared[0]
            finally:
                stop_role(role)

    @contextmanager
    def again() -> Iterator[Any]:
        yield shared[0]

    yield begun()
    yield again()


async def all_vectors(side: Side, sentences: list[str]) -> NDArray[np.float32]:
    """One request for each sentence. Leaves with the reply's words where a server refuses."""
    line, found = Line(side.port), []
    for sentence in sentences:
        status, _, body = await line.exchange(side.request(sentence))
        if status != 200:
            raise SystemExit(f"{side.name} answered {status}: {body[:300]!r}")
        found.append(side.vector(body))
    line.close()
    return np.stack(found)


def turn(side: Side, sentences: list[str], options: argparse.Namespace) -> Json:
    """One server under load for some seconds, after a second that is not counted."""
    requests = [side.request(sentence) for sentence in sentences]

    def make(number: int) -> bytes:
        return requests[number % len(requests)]

    asyncio.run(closed_loop(side.port, make, options.clients, 1))
    before = side.cpu()
    seen: Seen = asyncio.run(closed_loop(side.port, make, options.clients, options.seconds))
    cpu = (side.cpu() - before) * 1000 / max(1, len(seen.good))
    if set(seen.statuses) != {200}:
        raise SystemExit(f"{side.name} answered {dict(seen.statuses)}")
    told = seen.brief()
    return {"per_second": told["per_second"], "p50_ms": told["p50_ms"], "p99_ms": told["p99_ms"],
            "cpu_ms": round(cpu, 3)}  # fmt: skip


def bare_cpu(model: Path, sentences: list[str], precision: str, core: int) -> float:
    """CPU-milliseconds of a sentence, of texts to vectors in batches of 32 in the model alone; the median of 5."""
    code = (
        "import sys, time, statistics, json; from ssl_core.inference import load; "
        "import torch; torch.set_num_threads(1); from ssl_core.machine import keep_freed_memory; keep_freed_memory(); "
        "model = load(sys.argv[1]); texts = json.load(sys.stdin); precision = sys.argv[2]\n"
        "def once():\n"
        "    began = time.process_time()\n"
        "    for at in range(0, len(texts), 32): model.embed(texts[at:at + 32], precision=precision)\n"
        "    return (time.process_time() - began) * 1000 / len(texts)\n"
        "once(); print(statistics.median(once() for _ in range(5)))"
    )
    with on_core(core):
        done = subprocess.run(
            [sys.executable, "-c", code, str(model), precision], input=json.dumps(sentences), text=True, check=True,
            capture_output=True, env={**os.environ, **_OFFLINE},
        )  # fmt: skip
    return round(float(done.stdout.split()[-1]), 3)


def cosines(vectors: dict[str, NDArray[np.float32]]) -> dict[str, float]:
    """The least cosine of a sentence's vector to the naive server's."""
    unit = {name: each / np.linalg.norm(each, axis=1, keepdims=True) for name, each in vectors.items()}
    return {name: round(float((each * unit["naive"]).sum(1).min()), 6) for name, each in unit.items()}


def versions(options: argparse.Namespace) -> Json:
    """Of what the peers are made of."""
    names = {"naive": (options.python, ("torch", "transformers", "sentence_transformers"))}
    if options.infinity:
        names["infinity"] = (str(Path(options.infinity).with_name("python")), ("torch", "transformers", "infinity_emb"))
    code = "import sys, json, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    return {
        side: json.loads(subprocess.run([python, "-c", code, *packages], capture_output=True, check=True).stdout)
        for side, (python, packages) in names.items()
    }


def arguments() -> argparse.Namespace:
    """From the command line; a wrong path is told at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder of the peers' scripts")
    parser.add_argument("--python", required=True, help="a Python that has sentence-transformers and FastAPI")
    parser.add_argument("--infinity", default="", help="the program infinity_emb, in an environment of its own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each server in each round")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    if not (options.peers / "st_embed.py").is_file():
        parser.error(f"--peers: {options.peers} has no st_embed.py")
    options.peers, options.python = options.peers.resolve(), os.path.abspath(options.python)
    options.infinity = options.infinity and os.path.abspath(options.infinity)
    cores = sorted(os.sched_getaffinity(0))
    options.cores = (cores[0], cores[-1])
    return options


if __name__ == "__main__":
    sys.exit(main())
