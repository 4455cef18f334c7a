"""Which addresses may be reached: a text that people wrote becomes IP addresses that were judged.

Why. An address in a settings file, or in another server's answer, can point into the private
network or at a cloud's metadata service. So a host is resolved once, every address it gives is
judged, and the caller connects to one that was judged: a DNS answer that changes between check and
use changes nothing.

How. Public addresses over https; loopback where the host is written as such; private ranges and
plain http only where `Reach` says so. Forms that carry an IPv4 inside an IPv6 are opened first. One
bad address among several refuses the host.

Refused here: connecting (`service/http.py`), and showing more of an address than its host.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, NamedTuple

import httpx2

from service.config import is_loopback

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Give the addresses of a host, as texts. Raises OSError."""

_HOST = re.compile(r"[^\s%/?#@\\\[\]]{1,253}")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NEVER_PUBLIC = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # local NAT64: what it embeds is not known
    ipaddress.IPv6Network("2001::/32"),  # Teredo
    ipaddress.IPv6Network("fec0::/10"),  # site-local, before 2004
    ipaddress.IPv6Network("100::/64"),
    ipaddress.IPv6Network("5f00::/16"),
)


class HttpFault(RuntimeError):
    """No answer came; the text is fit for logs and receipts.

    Parameters
    ----------
    kind : str
        `refused`: the address or its certificate is not to be used; `unsent`: nothing left this
        machine, it may be tried again; `unknown`: it may have been done.
    """

    def __init__(self, kind: Literal["refused", "unsent", "unknown"], text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Reach(NamedTuple):
    """What an endpoint's settings allow beyond public addresses over https, and loopback."""

    allow_http: bool = False
    allow_private: tuple[Network, ...] = ()


class Target(NamedTuple):
    """An address that was read and judged, ready to be connected to."""

    url: httpx2.URL
    addresses: tuple[Address, ...]

    @property
    def shown(self) -> str:
        """Scheme, host and port: all that may be shown."""
        return f"{self.url.scheme}://{self.url.netloc.decode('ascii', 'replace')}"


def read_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Read an `allow_private` list of addresses and networks.

    Raises
    ------
    ValueError
        Naming the entry.
    """
    if isinstance(texts, str):
        raise ValueError("allow_private must be a list, such as [10.1.0.0/16]")
    networks: list[Network] = []
    for text in texts:
        try:
            networks.append(ipaddress.ip_network(text))
        except (ValueError, TypeError):
            raise ValueError(
                f"allow_private: found {text!r}, expected an address or a network such as "
                "10.1.0.0/16"
            ) from None
    return tuple(networks)


def fault_of_address(address: Address, allowed: Sequence[Network] = ()) -> str | None:
    """Say why an address must not be reached, or None. Forms that carry an IPv4 are opened."""
    plain = _unwrapped(address)
    if any(plain in network or address in network for network in allowed):
        return None
    if plain.is_loopback:
        return "loopback under another name"
    if plain.is_link_local:
        return "link-local, where clouds keep their metadata"
    if plain.is_multicast or plain.is_unspecified or plain.is_reserved:
        return "not one machine's address"
    if any(plain in network for network in _NEVER_PUBLIC) or not plain.is_global:
        return "not a public address"
    return None


def _unwrapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    # Below ::1:0:0 lie :: and ::1, which are themselves and no forms of an IPv4.
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 0xFFFF):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return inner or address


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask this machine's resolver, once."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def judge(url: str, reach: Reach, look_up: Resolve = resolve) -> Target:
    """Read an address, resolve its host once and judge every address that gives.

    Raises
    ------
    HttpFault
        `refused` when it must not be reached, `unsent` when its host cannot be resolved.
    """
    try:
        parsed = httpx2.URL(url)
        host, port = parsed.host, parsed.port
    except (httpx2.InvalidURL, TypeError, ValueError, UnicodeError):
        raise HttpFault("refused", "the address is no URL such as https://host/path") from None
    proper = _HOST.fullmatch(host) and (port is None or 0 < port <= 65_535)
    if parsed.scheme not in ("http", "https") or not proper or parsed.userinfo:
        raise HttpFault("refused", "the address must be https://host/… without a user in it")
    if parsed.scheme == "http" and not is_loopback(host) and not reach.allow_http:
        raise HttpFault("refused", f"{host}: http beyond loopback; use https, or allow_http: true")
    port = port or (443 if parsed.scheme == "https" else 80)
    addresses = await judge_host(host, port, reach, look_up)
    return Target(parsed.copy_with(fragment=None), addresses)


async def judge_host(
    host: str, port: int, reach: Reach, look_up: Resolve = resolve
) -> tuple[Address, ...]:
    """Resolve a host once and judge every address that gives.

    Raises
    ------
    HttpFault
        `refused` when one must not be reached, `unsent` when the host cannot be resolved.
    """
    try:
        texts = await look_up(host, port)
    except (OSError, UnicodeError):
        raise HttpFault("unsent", f"{host}: the name cannot be resolved") from None
    addresses = tuple(ipaddress.ip_address(text) for text in texts)
    if not addresses:
        raise HttpFault("unsent", f"{host}: the name has no address")
    for address in addresses:
        if is_loopback(host) and _unwrapped(address).is_loopback:
            continue
        if fault := fault_of_address(address, reach.allow_private):
            raise HttpFault(
                "refused", f"{host}: {address} is {fault}; list it in allow_private if it is meant"
            )
    return addresses
