"""What this machine's processor is good at. Imports without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def cpu_precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> Literal["fp32", "bf16"]:
    """The faster way to train here: `bf16` where the processor has bf16 matrix tiles (Intel AMX), else `fp32`.

    The flag `avx512_bf16` alone is not enough: there bf16 autocast is slower than fp32 (docs/decisions/0004).
    """
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        return "fp32"
    return "bf16" if "amx_bf16" in flags.split() else "fp32"
