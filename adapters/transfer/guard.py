"""Which hosts may be spoken to, and the only way to reach one."""

from __future__ import annotations

import re
import socket
import string
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import httpcore2

from adapters.transfer.pace import Meter, Pace
from adapters.transfer.pulse import Pulse
from adapters.transfer.resolver import Resolver
from adapters.transfer.stream import PulsedStream, dial

#: Networks that nobody outside may name, though ``ipaddress`` calls addresses of theirs global
#: in one version of Python or another (IANA's special-purpose registries; the clouds' manuals).
REFUSED_NETWORKS = tuple(
    ip_network(network)
    for network in (
        "100.64.0.0/10",  # carrier-grade NAT; a cloud's metadata service lives here
        "168.63.129.16/32",  # a cloud's host service
        "192.0.0.0/24",  # protocol assignments; another cloud's metadata service
        "192.88.99.0/24",  # 6to4 relays
        "::/96",  # IPv4-compatible: carries any IPv4 address
        "64:ff9b::/96",  # NAT64: the same
        "64:ff9b:1::/48",  # local NAT64: the same
        "2002::/16",  # 6to4: the same
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local
    )
)

#: How many addresses of one host are tried.
ADDRESSES_TRIED = 4

DEFAULT_PORTS = {"http": 80, "https": 443}

_HOST = re.compile(r"[a-z0-9._:-]+")
_NO_SUCH_HOST = (socket.EAI_NONAME, socket.EAI_NODATA)


class Unreachable(Exception):
    """The URL cannot be spoken to, now or later; the message says why and holds no secret."""


def is_public(address: str) -> bool:
    """Say whether an IP address belongs to the public internet.

    An IPv4-mapped address counts as the IPv4 address in it. Raises :class:`ValueError` if the
    text is no address.
    """
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    special = ip.is_multicast or ip.is_reserved or ip.is_unspecified or not ip.is_global
    return not special and not any(ip in network for network in REFUSED_NETWORKS)


@dataclass(frozen=True, slots=True)
class Policy:
    """Hold what may be spoken to: https on its own port to public hosts, and the exceptions."""

    allow_http: bool = False
    #: Hosts, as a URL names them, that may have private addresses and any port.
    private_hosts: frozenset[str] = frozenset()

    def trusts(self, host: str) -> bool:
        """Say whether a host may have a private address."""
        return host.lower() in {known.lower().strip("[]") for known in self.private_hosts}

    def admit(self, url: str) -> httpcore2.URL:
        """Take a URL apart if it may be spoken to; raise :class:`Unreachable` if not.

        Only its form is judged here: the address is, when :class:`GuardedBackend` dials it.
        """
        try:
            parts = urlsplit(url)
            host, port = _ascii(parts.hostname or ""), parts.port
        except ValueError as error:
            raise Unreachable("this is not a URL") from error
        self._check_scheme(parts.scheme)
        if "@" in parts.netloc:
            raise Unreachable("a URL must not hold a user name or password")
        if not _HOST.fullmatch(host):
            raise Unreachable("the URL names no host")
        if port not in (None, DEFAULT_PORTS[parts.scheme]) and not self.trusts(host):
            raise Unreachable(f"port {port} is not allowed")
        return httpcore2.URL(scheme=parts.scheme, host=host, port=port, target=_target(parts))

    def _check_scheme(self, scheme: str) -> None:
        if scheme not in DEFAULT_PORTS:
            raise Unreachable(f"the scheme {scheme!r} is not supported, only https")
        if scheme == "http" and not self.allow_http:
            raise Unreachable("the scheme 'http' is not allowed, only https")


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _target(parts: SplitResult) -> str:
    query = f"?{parts.query}" if parts.query else ""
    # Whatever HTTP cannot carry as it is; what is quoted already stays so.
    return quote((parts.path or "/") + query, safe=string.punctuation)


def look_up(host: str, port: int, ask: Callable[..., Any] = socket.getaddrinfo) -> list[str]:
    """Ask the system for the addresses of a host.

    Raises :class:`Unreachable` if it has none, :class:`httpcore2.ConnectError` if nobody could
    tell.
    """
    try:
        answers = ask(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_HOST:
            raise Unreachable(f"there is no host {host!r}") from error
        raise httpcore2.ConnectError(f"the name {host!r} could not be looked up") from error
    except UnicodeError as error:
        raise Unreachable(f"{host!r} is not a host name") from error
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class GuardedBackend(httpcore2.NetworkBackend):
    """Dials only what the policy allows: looks a host up once and dials what it has checked.

    The connection is made to an address, so that no second look-up can lead elsewhere; the
    certificate is still checked against the name, which httpcore2 keeps.
    """

    def __init__(
        self,
        policy: Policy,
        pulse: Pulse,
        *,
        resolver: Resolver | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Ask ``pulse`` before each step; share a ``resolver`` to bound its look-ups in all."""
        self._policy = policy
        self._pulse = pulse
        self._resolver = resolver or Resolver(look_up)
        self._pace = pace or Pace()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to one of a host's addresses; ``timeout``, in seconds, is for all of them.

        Raises :class:`Unreachable` before anything is sent if any of them is not allowed.
        """
        self._pulse()
        *others, last = addresses = self._addresses(host, port)
        share = None if timeout is None else timeout / len(addresses)
        for address in others:
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return self._dial(address, port, share)
        return self._dial(last, port, share)

    def _addresses(self, host: str, port: int) -> Sequence[str]:
        addresses = self._resolver.addresses(host, port, self._pulse)
        if not self._policy.trusts(host) and not all(map(is_public, addresses)):
            # Not which address: a name inside the worker's network is nobody's business.
            raise Unreachable(f"{host!r} is not a public host")
        return addresses[:ADDRESSES_TRIED]

    def _dial(self, address: str, port: int, seconds: float | None) -> PulsedStream:
        connection, peer = dial(address, port, seconds, self._pulse)
        if ip_address(peer) != ip_address(address):
            # The system has its own idea of where this leads: what was checked is not there.
            connection.close()
            raise Unreachable("a connection to the host ends at another address")
        return PulsedStream(connection, self._pulse, Meter(self._pace))
