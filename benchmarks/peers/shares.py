"""Where the timed steps of a side spend their time, as shares of it, by kind of operator. Imports nothing of ours.

    PEERS_VENV/bin/python benchmarks/peers/shares.py PEERS/hf_mae.py ...

runs a peer's script under the profiler, from its first timed step to its last, and ends with a line of JSON.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("convolutions", ("convolution",)),
    ("attention", ("scaled_dot_product", "bmm", "_softmax", "softmax_backward")),
    ("matrix products", ("mm", "addmm", "linear")),
    ("dropout draws", ("bernoulli", "random_")),
    ("GELU, ReLU and the like", ("gelu", "relu", "tanh", "pow", "threshold", "clamp_min", "silu")),
    ("norms", ("layer_norm", "batch_norm", "group_norm")),
    ("loss over the vocabulary", ("log_softmax", "nll", "argmax", "max")),
    ("optimizer", ("adam", "sgd", "addcdiv", "addcmul", "lerp", "sqrt")),
    ("copies and fills", ("copy_", "cat", "fill_", "clone", "zero_", "index", "gather")),
    ("sums and elementwise", ("add", "mul", "sub", "div", "sum", "where", "ge", "neg", "exp", "norm")),
)
"""The first kind with a part in an operator's name has it; `log_softmax` is told from attention's softmax below."""
OUTSIDE = "outside of operators: Python, reading and making pictures"


def kind(operator: str) -> str:
    """The kind of an operator such as `aten::addmm`."""
    bare = operator.removeprefix("aten::").removeprefix("mkldnn::")
    if "log_softmax" in bare:
        return "loss over the vocabulary"
    if bare in ("mm", "addmm") or bare.startswith("mkldnn_linear"):
        return "matrix products"
    return next((name for name, parts in _KINDS if any(part in bare for part in parts)), "other operators")


def shares(taken: profile, seconds: float) -> dict[str, float]:
    """Share of `seconds` by kind, the greatest first; what the operators of the main thread do not fill is outside."""
    totals: dict[str, float] = {}
    for event in taken.key_averages():
        if event.key.startswith("aten::"):
            totals[kind(event.key)] = totals.get(kind(event.key), 0.0) + event.self_cpu_time_total / 1e6
    totals[OUTSIDE] = max(0.0, seconds - sum(totals.values()))
    ordered = sorted(totals.items(), key=lambda item: -item[1])
    return {name: round(value / seconds, 3) for name, value in ordered if value / seconds >= 0.005}


def main(arguments: list[str]) -> int:
    """Run a peer's script with its clock widened to a profiler."""
    script = Path(arguments[0])
    sys.path.insert(0, str(script.parent))
    _peer = importlib.import_module("_peer")
    taken, started = profile(activities=[ProfilerActivity.CPU]), [0.0]
    end, finish = _peer.StepClock.end, _peer.StepClock.finish

    def timed_end(clock: Any) -> None:
        before = clock.timed
        end(clock)
        if clock.timed and not before:
            taken.start()
            started[0] = time.perf_counter()

    def timed_finish(clock: Any) -> Any:
        seconds = time.perf_counter() - started[0]
        taken.stop()
        found.update(shares(taken, seconds))
        return finish(clock)

    found: dict[str, float] = {}
    _peer.StepClock.end, _peer.StepClock.finish = timed_end, timed_finish
    sys.argv = [str(script), *arguments[1:]]
    runpy.run_path(str(script), run_name="__main__")
    print(json.dumps({"shares": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
