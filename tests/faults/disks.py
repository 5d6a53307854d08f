"""Small and slow disks of their own, where this process may mount them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BALLAST = "ballast"
_THROTTLES = Path("/sys/fs/cgroup/blkio")


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """A tmpfs on `folder`; False where this process may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "groundwork-test", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Not a byte is left."""
    with (folder / BALLAST).open("wb", buffering=0) as out:
        try:
            while True:
                out.write(b"\0" * 65_536)
        except OSError:
            pass


def free(folder: Path) -> None:
    """The room is there again."""
    (folder / BALLAST).unlink(missing_ok=True)


@contextmanager
def slow_disk(folder: Path, image: Path, rate: int) -> Iterator[Path | None]:
    """256 MB on `folder` that takes `rate` bytes a second from processes in a group of their own.

    Yields the file that a pid is written to, to slow that process and what it starts; None where this process may not
    mount, or the kernel has no throttle for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as out:
        out.truncate(256 << 20)
    # Synchronous, so that a write waits in the process that makes it: written back later it would be nobody's.
    commands = (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop,sync", str(image), str(folder)])
    group, mounted = _THROTTLES / f"groundwork-{image.stat().st_ino}", False
    try:
        mounted = all(subprocess.run(command, capture_output=True).returncode == 0 for command in commands)
        yield _throttled(group, folder, rate) if mounted else None
    except FileNotFoundError:
        yield None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        if group.exists():
            group.rmdir()


def _throttled(group: Path, folder: Path, rate: int) -> Path | None:
    device = folder.stat().st_dev
    try:
        group.mkdir()
        limit = f"{os.major(device)}:{os.minor(device)} {rate}"
        (group / "blkio.throttle.write_bps_device").write_text(limit)
    except OSError:
        return None
    return group / "cgroup.procs"
