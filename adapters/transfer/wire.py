"""One HTTP request to a stranger's server, and the one place where its errors are understood.

No redirects, no cookies, no proxies, no decoding: a caller sees what the server sent.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus

import httpcore2

from adapters.transfer.guard import DEFAULT_PORTS, GuardedBackend, Policy, Unreachable, look_up
from adapters.transfer.pace import Pace, TooSlow
from adapters.transfer.pulse import Pulse
from adapters.transfer.resolver import Resolver
from adapters.transfer.retry import Transient

CONNECT_SECONDS = 10.0

#: Statuses after which another try may succeed (RFC 9110, RFC 6585, RFC 8470).
RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

#: A stranger's words are repeated no further than this.
REASON_CHARACTERS = 200

_PHRASES = {status.value: status.phrase for status in HTTPStatus}

_FAULTS = (
    httpcore2.ConnectionNotAvailable,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
    httpcore2.UnsupportedProtocol,
)
_PERMANENT = (httpcore2.LocalProtocolError, httpcore2.ProxyError, httpcore2.UnsupportedProtocol)


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer: its body can be read once, while the request is open."""

    status: int
    #: By lower-case name; of a header sent twice, the last.
    headers: Mapping[str, str]
    body: Iterator[bytes]

    def __str__(self) -> str:
        return status_line(self.status)

    @property
    def succeeded(self) -> bool:
        """Return whether the server did what it was asked."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def size(self) -> int | None:
        """Return the bytes that the body is said to have, if anything is said that counts."""
        declared = self.headers.get("content-length")
        if declared is None or "transfer-encoding" in self.headers:
            # What comes in chunks ends with the last of them (RFC 9112, section 6.3).
            return None
        return int(declared)


def status_line(status: int) -> str:
    """Return a status with the standard's words for it, not the server's."""
    return f"{status} {_PHRASES.get(status, '')}".rstrip()


class Wire:
    """Sends requests to hosts that a policy allows."""

    def __init__(
        self,
        policy: Policy,
        *,
        stall_seconds: float,
        pace: Pace | None = None,
        tls: ssl.SSLContext | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """Give a server up that is silent for ``stall_seconds`` or slower than ``pace``.

        Trust the system's authorities and its names unless ``tls`` and ``resolver`` say otherwise.
        """
        self._policy = policy
        self._stall_seconds = stall_seconds
        self._pace = pace
        self._tls = tls or _system_trust()
        self._resolver = resolver or Resolver(look_up)

    @contextmanager
    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        pulse: Pulse,
        content: bytes | Iterator[bytes] | None = None,
    ) -> Iterator[Reply]:
        """Send a request and lend the answer; the connection is closed afterwards.

        ``pulse`` is called before each step on the socket, and what it raises comes out. Raises
        :class:`Unreachable` if no try would help, :class:`Transient` if another may: both also
        while the body is read.
        """
        target = self._policy.admit(url)
        backend = GuardedBackend(self._policy, pulse, resolver=self._resolver, pace=self._pace)
        pool = httpcore2.ConnectionPool(ssl_context=self._tls, network_backend=backend)
        with self._understanding(), pool:
            with pool.stream(
                method,
                target,
                headers=[("Host", _authority(target)), *headers.items()],
                content=content,
                extensions={"timeout": self._timeouts()},
            ) as response:
                yield _reply(response)

    def _timeouts(self) -> dict[str, float]:
        return {
            "connect": CONNECT_SECONDS,
            "read": self._stall_seconds,
            "write": self._stall_seconds,
        }

    @contextmanager
    def _understanding(self) -> Iterator[None]:
        try:
            yield
        except _FAULTS as error:
            raise self._meaning(error) from error

    def _meaning(self, error: Exception) -> Unreachable | Transient:
        for cause in error.args:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return Unreachable(f"the certificate is not valid: {cause.verify_message}")
        if isinstance(error, _PERMANENT):
            return Unreachable(f"this is not a request that HTTP can carry: {error}")
        if isinstance(error, httpcore2.ConnectTimeout):
            return Transient(f"no connection within {CONNECT_SECONDS:g} s")
        if isinstance(error, httpcore2.TimeoutException) and not isinstance(error, TooSlow):
            return Transient(f"the server stood still for {self._stall_seconds:g} s")
        return Transient(str(error)[:REASON_CHARACTERS] or type(error).__name__)


@cache
def _system_trust() -> ssl.SSLContext:
    """Read the system's authorities: once, as there are a hundred and more of them."""
    return httpcore2.default_ssl_context()


def _authority(target: httpcore2.URL) -> str:
    host, scheme = target.host.decode("ascii"), target.scheme.decode("ascii")
    # httpcore2 itself would leave out the brackets of an IPv6 address.
    host = f"[{host}]" if ":" in host else host
    return host if target.port in (None, DEFAULT_PORTS[scheme]) else f"{host}:{target.port}"


def _reply(response: httpcore2.Response) -> Reply:
    headers = {
        name.decode("ascii").lower(): value.decode(errors="replace")
        for name, value in response.headers
    }
    if response.status in RETRYABLE_STATUSES:
        raise _not_now(response.status, headers)
    return Reply(response.status, headers, response.iter_stream())


def _not_now(status: int, headers: Mapping[str, str]) -> Transient:
    asked_seconds = _asked_seconds(headers)
    wish = f", to be asked again after {asked_seconds:g} s" if asked_seconds else ""
    return Transient(f"{status_line(status)}{wish}", status=status, asked_seconds=asked_seconds)


def _asked_seconds(headers: Mapping[str, str]) -> float:
    """Read a Retry-After, of seconds or a date (RFC 9110, section 10.2.3); 0 if it is neither."""
    asked = headers.get("retry-after", "")
    if asked.isascii() and asked.isdecimal():
        return float(asked)
    until = _moment(asked)
    if until is None:
        return 0.0
    # By the server's own clock: it need not agree with ours.
    now = _moment(headers.get("date", "")) or datetime.now(UTC)
    return max((until - now).total_seconds(), 0.0)


def _moment(date: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
