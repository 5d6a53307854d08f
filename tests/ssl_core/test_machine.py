"""What the processor's flags say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_core.machine import cpu_precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512_bf16 amx_bf16 amx_tile", "bf16"), ("fpu avx512_bf16 avx512f", "fp32"), ("", "fp32")],
)
def test_bf16_pays_off_with_matrix_tiles_only(tmp_path: Path, flags: str, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert cpu_precision(tmp_path / "cpuinfo") == expected


def test_an_unknown_machine_trains_in_fp32(tmp_path: Path) -> None:
    assert cpu_precision(tmp_path / "absent") == "fp32"
