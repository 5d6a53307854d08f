"""The ground of a process: what of this machine it may read, write and reach (rules R27 and R29).

Strangers' files are decoded in the engine, and in the inference process where they come with a request. Whatever a
broken decoder is made to do, it does without this platform's secrets, other runs' files and, in an engine, the network.
`worker.launch` puts it into force.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/nix", "/gnu", "/sys", "/proc",
    "/var/cache/fontconfig",
)  # fmt: skip
"""Programs, libraries and the machine's description. No home and no data folder is among them."""
DEVICES = "/dev"
_OF_PROGRAMS = ("PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH")


def ground(
    run: Path, order: Mapping[str, Any], environment: Mapping[str, str], private: Iterable[Path]
) -> dict[str, Any]:
    """What `worker.launch` takes: the run's folder and the prepared data to write, programs to read.

    The network is open to a run of several processes, which speak to each other, and to one that fetches from a hub
    where the operator allows that.

    Args:
        run: the run's folder; its inputs and checkpoints lie in it.
        order: its `run.json`.
        environment: the engine's.
        private: folders that are not to be read, though programs may lie around them.
    """
    spec = order["spec"]
    several = int((spec.get("resources") or {}).get("processes") or 1) > 1
    hub = bool(spec.get("hub")) and "GROUNDWORK_ALLOW_HUB" in environment
    prepared = [str(order["cache"])] if order.get("cache") else []
    return {**_read(environment, private), "write": [str(run), *prepared, DEVICES], "network": several or hub}


def ground_of_inference(models: Path, private: Iterable[Path]) -> dict[str, Any]:
    """The same for the process that answers requests: the folder of its models to write, and the network."""
    return {**_read(os.environ, private), "write": [str(models), DEVICES], "network": True}


def _read(environment: Mapping[str, str], private: Iterable[Path]) -> dict[str, list[str]]:
    hidden = tuple(folder.resolve() for folder in private)
    read, listed = list(SYSTEM), []
    for folder in sorted(set(_programs(environment))):
        if any(each.is_relative_to(folder) for each in hidden):
            listed.append(str(folder))
            read += [str(path) for path in _around(folder, hidden)]
        else:
            read.append(str(folder))
    return {"read": read, "listed": listed}


def _programs(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where Python, its packages and their libraries are."""
    interpreter = Path(sys.executable)
    yield from map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix))
    yield from (interpreter.parent, interpreter.resolve().parent)
    for folder in (*sys.path, *os.pathsep.join(environment.get(name, "") for name in _OF_PROGRAMS).split(os.pathsep)):
        if os.path.isabs(folder) and folder != os.sep:
            yield Path(folder).resolve()


def _around(folder: Path, hidden: tuple[Path, ...]) -> Iterator[Path]:
    """What lies in a folder beside the hidden ones: its folders and modules, not the other files."""
    for child in sorted(folder.iterdir()):
        if any(each.is_relative_to(child) for each in hidden):
            if child not in hidden:
                yield from _around(child, hidden)
        elif child.is_dir() or child.suffix == ".py":
            yield child
