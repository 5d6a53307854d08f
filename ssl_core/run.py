"""One run of the engine: `python -m ssl_core.run DIR`, where DIR holds `run.json` (docs/contracts.md §2).

Works by hand with no service at all:

    mkdir run && cat > run/run.json   # {"spec": {…resolved…}, "datasets": {"ds_x": "/path"}, "cache": "/tmp/cache"}
    python -m ssl_core.run run        # events in run/events.jsonl, the model in run/artifact, the verdict: result.json

Several processes: `torchrun --nproc-per-node 2 -m ssl_core.run DIR`, or `resources.processes` in the spec.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ssl_core.context import MemoryContext, RunContext, Stopped
from ssl_core.durable import write_json
from ssl_core.errors import SpecError
from ssl_core.machine import keep_freed_memory
from ssl_core.run_context import FileContext
from ssl_core.spec import (
    BaselineSpec,
    BatchSpec,
    EmbedSpec,
    EvaluateSpec,
    ExportSpec,
    FinetuneSpec,
    ImportSpec,
    IngestSpec,
    PredictSpec,
    PretrainSpec,
    ReportSpec,
    RunOrder,
)
from ssl_core.verdict import failure

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """SIGTERM (save and leave) when the supervisor dies: otherwise training would live on under pid 1 (M9)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGTERM)


def read_order(workdir: Path) -> RunOrder:
    """Raises SpecError `invalid_order`, naming the first field at fault."""
    try:
        return RunOrder.model_validate_json((workdir / "run.json").read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SpecError("invalid_order", f"run.json: {where}: {first['msg']}", where) from error
    except OSError as error:
        raise SpecError("invalid_order", f"{workdir} holds no readable run.json") from error


def execute(order: RunOrder, context: RunContext) -> dict[str, Any]:
    """Dispatch on the spec's type; returns the verdict. Raises what the run raises."""
    spec = order.spec
    if isinstance(spec, IngestSpec):
        from ssl_core.data import ingest

        context.emit("stage", stage="ingesting")
        return {"status": "succeeded", "metrics": {}, "summary": ingest.run(order, context)}
    if isinstance(spec, BatchSpec):
        from ssl_core.requests import run as batch

        return batch.run(order, spec, context)
    # Only from here on: an ingest, and a batch that cannot be used, have no need of torch, whose import takes seconds.
    import torch

    if order.threads is not None:
        torch.set_num_threads(order.threads)
    if isinstance(spec, PredictSpec | EmbedSpec):
        return _asked(order, spec, context)
    if isinstance(spec, EvaluateSpec | BaselineSpec | ReportSpec):
        return _measured(order, spec, context)
    if isinstance(spec, ImportSpec | ExportSpec):
        return _interchange(order, spec, context)
    from ssl_core.distributed import process_group
    from ssl_core.finetune import finetune
    from ssl_core.pretrain import pretrain

    with process_group():
        if isinstance(spec, PretrainSpec):
            return pretrain(order, spec, context)
        assert isinstance(spec, FinetuneSpec)
        return finetune(order, spec, context)


def _asked(order: RunOrder, spec: PredictSpec | EmbedSpec, context: RunContext) -> dict[str, Any]:
    from ssl_core.evaluation import over_rows

    if isinstance(spec, PredictSpec):
        return over_rows.predict(order, spec, context)
    return over_rows.embed(order, spec, context)


def _measured(order: RunOrder, spec: EvaluateSpec | BaselineSpec | ReportSpec, context: RunContext) -> dict[str, Any]:
    if isinstance(spec, EvaluateSpec):
        from ssl_core.evaluation import evaluate

        return evaluate.run(order, spec, context)
    if isinstance(spec, BaselineSpec):
        from ssl_core.evaluation import baselines

        return baselines.run(order, spec, context)
    from ssl_core.evaluation import report

    return report.run(spec, context)


def _interchange(order: RunOrder, spec: ImportSpec | ExportSpec, context: RunContext) -> dict[str, Any]:
    if isinstance(spec, ImportSpec):
        from ssl_core.interop import importer

        return importer.run(order, spec, context)
    from ssl_core.interop import exporter

    return exporter.run(order, spec, context)


def run(workdir: Path, context: RunContext) -> dict[str, Any]:
    """Everything between `run.json` and the verdict; no exception of a run gets past it."""
    try:
        return execute(read_order(workdir), context)
    except Stopped as stop:
        return {"status": "stopped", "reason": stop.reason, "step": 0}
    except Exception as error:
        traceback.print_exc()
        return failure(error)


def main(arguments: list[str]) -> int:
    """The process: signals, ranks, the verdict written last."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m ssl_core.run DIR    (a folder that holds run.json)", file=sys.stderr)
        return 2
    die_with_parent()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    workdir = Path(arguments[0]).resolve()
    (workdir / "result.json").unlink(missing_ok=True)
    _become_torchrun(workdir)
    keep_freed_memory()
    if int(os.environ.get("RANK", "0")) > 0:
        return _follow(workdir)
    context = FileContext(workdir)
    context.listen_to_sigterm()
    verdict = run(workdir, context)
    context.close()
    write_json(workdir / "result.json", verdict)
    return 0 if verdict["status"] != "failed" else 1


def _become_torchrun(workdir: Path) -> None:
    """Start again under torchrun where the spec asks for several processes and nobody has done so."""
    try:
        order = read_order(workdir)
    except SpecError:
        return  # `run` says it properly
    processes = order.spec.resources.processes
    trains = isinstance(order.spec, PretrainSpec | FinetuneSpec)
    if processes > 1 and trains and "WORLD_SIZE" not in os.environ:
        torchrun = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
            "-m",
            "ssl_core.run",
            str(workdir),
        ]
        os.execv(sys.executable, [sys.executable, *torchrun])


def _follow(workdir: Path) -> int:
    """A rank above 0: trains along and writes nothing. SIGTERM is left to rank 0, which tells the others."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    verdict = run(workdir, MemoryContext(workdir))
    return 0 if verdict["status"] != "failed" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
