"""Where this server may connect to on a user's behalf (R30).

A URL is checked when it is set, and the addresses that its name has are checked again at every delivery, which then
connects to the very address that was checked: a name that changes its mind between the two reaches nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from app.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAX_URL = 2000
_HOST = re.compile(r"(?=.{1,253}\Z)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_-]{1,63}\.?")
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
# Beside what is not global anyway: relays and translators, behind which a private address may stand.
_DENIED: tuple[Network, ...] = (
    *_NAT64, ipaddress.ip_network("192.88.99.0/24"), ipaddress.ip_network("2001::/32"), ipaddress.ip_network("::/96"),
    ipaddress.ip_network("2002::/16"), ipaddress.ip_network("fec0::/10"),
)  # fmt: skip


class Refused(Exception):
    """The URL, or an address that its name has, is none that this server connects to."""


class Target(NamedTuple):
    """Where a request goes.

    Attributes:
        host: as the URL names it.
        port: to connect to.
        address: that was checked.
    """

    host: str
    port: int
    address: str


@dataclass(frozen=True)
class Outbound:
    """What the operator allows.

    Attributes:
        ports: that may be connected to.
        networks: beside all public addresses.
    """

    ports: frozenset[int]
    networks: tuple[Network, ...]

    @classmethod
    def of(cls, settings: Settings) -> Outbound:
        """As the settings say."""
        return cls(frozenset(settings.outbound_ports), tuple(settings.outbound_networks))

    def check(self, url: str) -> SplitResult:
        """The parts of a URL that may be set. Raises Refused with the reason, in words for its owner."""
        parts, port = _split(url)
        if port not in self.ports:
            allowed = ", ".join(map(str, sorted(self.ports)))
            raise Refused(f"port {port} is not allowed; allowed are {allowed}")
        host = parts.hostname or ""
        if host.rstrip(".").lower() == "localhost" or host.rstrip(".").lower().endswith(".localhost"):
            host = "127.0.0.1"
        numeric = _numeric(host)
        if numeric is not None and not self.allows(numeric):
            raise Refused("its address is not a public one")
        return parts

    async def resolve(self, url: str) -> Target:
        """A checked address of the URL's host, now. Raises Refused, and OSError where the name has none."""
        parts = self.check(url)
        host, port = str(parts.hostname), _split(url)[1]
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(sockaddr[0]) for _, _, _, _, sockaddr in found]
        # One private address among several is a trap: none is taken.
        if not addresses or not all(self.allows(ipaddress.ip_address(each.partition("%")[0])) for each in addresses):
            raise Refused("an address of its host is not a public one")
        return Target(host, port, addresses[0])

    def allows(self, address: Address) -> bool:
        """Whether this address may be connected to."""
        inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        if inner is not None:
            return self.allows(inner)
        if any(address in network for network in self.networks if network.version == address.version):
            return True
        denied = any(address in network for network in _DENIED if network.version == address.version)
        return address.is_global and not (denied or address.is_multicast or address.is_reserved)


def _split(url: str) -> tuple[SplitResult, int]:
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise Refused(f"a URL has at most {MAX_URL} printable ASCII characters, without spaces or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused("it is not a URL") from error
    if parts.scheme not in ("http", "https"):
        raise Refused("it begins with neither https:// nor http://")
    if "@" in parts.netloc:
        raise Refused("it holds a user name or password; receivers are told apart by the signature")
    if parts.fragment:
        raise Refused("it holds a fragment (#…), which no server is sent")
    host = parts.hostname or ""
    if not host or (":" not in host and not _HOST.fullmatch(host)):
        raise Refused("it names no host that could be")
    return parts, port if port is not None else {"https": 443, "http": 80}[parts.scheme]


def _numeric(host: str) -> Address | None:
    """The address that a host spells out, in any of the forms that a resolver takes (127.1, 0x7f000001, …)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.inet_aton(host.rstrip(".")))
    except (OSError, ValueError):
        return None
