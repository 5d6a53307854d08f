"""Become another program that cannot outlive its parent: `python -I -S launch.py PARENT SIGNAL LIMITS -- PROGRAM …`.

A child of a SIGKILLed parent lives on under pid 1. PR_SET_PDEATHSIG makes the kernel send SIGNAL instead, and it
survives exec; `preexec_fn` could set it too, but may deadlock in a process that has threads. Standard library only,
so that it costs some 20 ms. LIMITS is `nice=5,core=0,fsize=…,nofile=…` or `-`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Set the death signal and the limits, then exec. Never returns."""
    parent, signal, limits, _, *program = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the call above took hold
        sys.exit(1)
    if limits != "-":
        _limit(dict(each.split("=", 1) for each in limits.split(",")))
    os.execv(program[0], program)


def _limit(limits: dict[str, str]) -> None:
    _be_nice(int(limits.pop("nice", 0)))
    for name, value in limits.items():
        kind = {"core": resource.RLIMIT_CORE, "fsize": resource.RLIMIT_FSIZE, "nofile": resource.RLIMIT_NOFILE}[name]
        hard = resource.getrlimit(kind)[1]
        wanted = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(kind, (wanted, wanted))


def _be_nice(level: int) -> None:
    """Also as a session: with Linux's autogroup scheduling niceness counts only among the processes of one session, and
    an engine, which leads its own, would weigh as much as the API."""
    os.nice(level)
    if level > 0:
        with contextlib.suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as autogroup:
            autogroup.write(str(level))


if __name__ == "__main__":
    main(sys.argv[1:])
