"""One HTTP request to a stranger's server, and the one place where its errors are understood.

No redirects, no cookies, no proxies, no decoding: a caller sees what the server sent.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus

import httpcore2

from adapters.transfer.guard import DEFAULT_PORTS, GuardedBackend, Policy, Pulse, Unreachable
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
        """Return the bytes that the body is said to have, if anything is said."""
        declared = self.headers.get("content-length")
        return None if declared is None else int(declared)


def status_line(status: int) -> str:
    """Return a status with the standard's words for it, not the server's."""
    return f"{status} {_PHRASES.get(status, '')}".rstrip()


class Wire:
    """Sends requests to hosts that a policy allows."""

    def __init__(
        self, policy: Policy, *, stall_seconds: float, tls: ssl.SSLContext | None = None
    ) -> None:
        """Trust the system's authorities unless ``tls`` says otherwise."""
        self._policy = policy
        self._stall_seconds = stall_seconds
        self._tls = tls or _system_trust()

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
        backend = GuardedBackend(self._policy, pulse)
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
        if isinstance(error, httpcore2.TimeoutException):
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
        raise Transient(
            status_line(response.status),
            status=response.status,
            asked_seconds=_asked_seconds(headers.get("retry-after", "")),
        )
    return Reply(response.status, headers, response.iter_stream())


def _asked_seconds(retry_after: str) -> float:
    """Read a Retry-After; one that is a date counts as none, and the usual back-off is waited."""
    return float(retry_after) if retry_after.isdecimal() and retry_after.isascii() else 0.0
