"""What an engine begins with: its niceness, also as a session, and its limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import worker.launch

AUTOGROUP = Path("/proc/self/autogroup")
LOOK = "import os, pathlib; print(os.nice(0)); print(pathlib.Path('/proc/self/autogroup').read_text())"


def launched(limits: str, code: str) -> list[str]:
    """The lines a program prints that was started under these limits in a session of its own."""
    program = [sys.executable, "-I", "-S", worker.launch.__file__, str(os.getpid()), "9", limits, "-", "--"]
    done = subprocess.run(
        [*program, sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True, check=True
    )
    return done.stdout.split("\n")


def test_an_engine_is_as_nice_as_it_is_told() -> None:
    here = os.nice(0)
    assert int(launched("nice=7", "import os; print(os.nice(0))")[0]) == min(19, here + 7)
    assert int(launched("nice=0", "import os; print(os.nice(0))")[0]) == here


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel schedules without autogroups")
def test_its_session_is_as_nice_towards_others() -> None:
    assert launched("nice=7", LOOK)[1].endswith("nice 7")


def test_it_lives_under_its_limits() -> None:
    code = "import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE))"
    assert launched("nofile=123,core=0", code)[0] == "(123, 123) (0, 0)"
