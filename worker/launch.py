"""Become another program that cannot outlive its parent, nor leave its ground:
`python -I -S launch.py PARENT SIGNAL LIMITS GROUND -- PROGRAM …`.

A child of a SIGKILLed parent lives on under pid 1. PR_SET_PDEATHSIG makes the kernel send SIGNAL instead, and it
survives exec; `preexec_fn` could set it too, but may deadlock in a process that has threads. Standard library only,
so that it costs some 20 ms. LIMITS is `nice=5,core=0,fsize=…,nofile=…,data=…` or `-`.

GROUND is JSON, `{"read": [PATH, …], "listed": [PATH, …], "write": [PATH, …], "network": false}`, or `-`: with Landlock
(Linux 5.19 and newer, https://docs.kernel.org/userspace-api/landlock.html, no privilege needed) the program and all it
starts can open nothing else. Without `network` they open no TCP connection (Linux 6.7); none signals a process outside
(Linux 6.12). A kernel that lacks Landlock launches the program as it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import stat
import sys

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, on every architecture."""
LEAST_ABI = 2
"""The first one lets nobody move a file to another folder."""

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REFER, TRUNCATE = 1 << 13, 1 << 14
_ALL_1 = (1 << 13) - 1  # the rights of the first version: the four above, and to make and remove files of all kinds
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
_TCP = 3  # bind and connect
_SCOPES = 3  # abstract sockets and signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def main(arguments: list[str]) -> None:
    """Set the death signal, the limits and the ground, then exec. Never returns."""
    parent, signal, limits, ground, _, *program = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the call above took hold
        sys.exit(1)
    if limits != "-":
        _limit(dict(each.split("=", 1) for each in limits.split(",")))
    if ground != "-" and landlock_abi() >= LEAST_ABI:
        confine(**json.loads(ground))
    os.execv(program[0], program)


def landlock_abi() -> int:
    """The kernel's version of Landlock; 0 where it has none, or has it switched off."""
    if sys.platform != "linux":
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def confine(read: list[str], listed: list[str], write: list[str], network: bool) -> None:
    """Give up, for good and for all children, whatever is not named. Paths that do not exist are passed over.

    Args:
        read: files and folders to read and execute, and all beneath.
        listed: folders of which the names alone may be read.
        write: files and folders to do anything with.
        network: TCP stays open.

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    abi = landlock_abi()
    files = _ALL_1 | REFER | (TRUNCATE if abi >= 3 else 0)
    rules = _Ruleset(files, 0 if network or abi < 4 else _TCP, _SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _called(libc.syscall(CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0)))
    for paths, rights in ((read, EXECUTE | READ_FILE | READ_DIR), (listed, READ_DIR), (write, files)):
        for path in paths:
            _allow(libc, ruleset, path, rights & files)
    _called(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _called(libc.syscall(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)))
    os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(opened).st_mode):
        rights &= _OF_FILES
    rule = _Beneath(rights, opened)
    _called(
        libc.syscall(
            ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(1), ctypes.byref(rule), ctypes.c_uint32(0)
        )
    )  # fmt: skip
    os.close(opened)


def _called(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def _limit(limits: dict[str, str]) -> None:
    _be_nice(int(limits.pop("nice", 0)))
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
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
