"""What the processor's flags say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ssl_core.machine import cpu_precision

_FAULTS = """
import resource, sys
from ssl_core.machine import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(77)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(2**26)
before = faults()
for _ in range(5):
    bytearray(b"x") * 2**26
print(faults() - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip("this C library has no mallopt")
    return int(done.stdout)


def test_memory_that_was_freed_is_used_again_without_page_faults() -> None:
    assert page_faults("keep") < page_faults("usual") / 2


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512_bf16 amx_bf16 amx_tile", "bf16"), ("fpu avx512_bf16 avx512f", "fp32"), ("", "fp32")],
)
def test_bf16_pays_off_with_matrix_tiles_only(tmp_path: Path, flags: str, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert cpu_precision(tmp_path / "cpuinfo") == expected


def test_an_unknown_machine_trains_in_fp32(tmp_path: Path) -> None:
    assert cpu_precision(tmp_path / "absent") == "fp32"
