"""Hosts of their own on one machine: network namespaces, each joined to this one by a cable that can be pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


class Host:
    """One namespace.

    Attributes:
        gateway: this machine's address, as the host sees it.
        prefix: what a command begins with to run there.
    """

    def __init__(self, name: str, subnet: str) -> None:
        self.name, self.gateway, self._address = name, f"{subnet}.1", f"{subnet}.2"
        self.prefix = ["ip", "netns", "exec", name]

    def __enter__(self) -> Host:
        outside, inside = f"{self.name}o", f"{self.name}i"
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", self.name)
            _ip("addr", "add", f"{self.gateway}/30", "dev", outside)
            _ip("link", "set", outside, "up")
            _ip("-n", self.name, "addr", "add", f"{self._address}/30", "dev", inside)
            _ip("-n", self.name, "link", "set", inside, "up")
            _ip("-n", self.name, "link", "set", "lo", "up")
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "del", self.name)  # the cable goes with it

    def pull(self) -> None:
        """No packet passes from now on, and nobody is told."""
        _ip("link", "set", f"{self.name}o", "down")

    def plug(self) -> None:
        """The cable is back."""
        _ip("link", "set", f"{self.name}o", "up")


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many of them; an empty list where this process may not make any."""
    own, found = os.getpid(), []
    with ExitStack() as stack:
        try:
            for n in range(count if shutil.which("ip") else 0):
                subnet = f"10.{128 + own % 100}.{2 * (own // 100 % 100) + n}"
                found.append(stack.enter_context(Host(f"gw{own}x{n}", subnet)))
        except OSError:
            found.clear()
        yield found


def _ip(*words: str) -> None:
    """Raises OSError where it may not be done."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip())
