"""What this machine's processor is good at. Imports without torch."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Literal

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, which a training loop asks for again at once; whether the C library can.

    glibc gives every large block back to the kernel, and getting it again costs a page fault for each 4 KiB: a tenth
    of a training step on a CPU.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def cpu_precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> Literal["fp32", "bf16"]:
    """The faster way to train here: `bf16` where the processor has bf16 matrix tiles (Intel AMX), else `fp32`.

    The flag `avx512_bf16` alone is not enough: there bf16 autocast is slower than fp32 (docs/decisions/0004).
    """
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        return "fp32"
    return "bf16" if "amx_bf16" in flags.split() else "fp32"
