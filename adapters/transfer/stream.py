"""A connection on which nobody waits longer than the job lasts."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpcore2

from adapters.transfer.pace import Meter
from adapters.transfer.pulse import Pulse, patiently

#: What is written at once: one TLS record (RFC 8446, section 5.1).
WRITE_BYTES = 16 * 1024


def dial(address: str, port: int, seconds: float | None, pulse: Pulse) -> tuple[socket.socket, str]:
    """Connect to an IP address within some seconds; return the connection and who is at its end.

    ``pulse`` may end the waiting. Raises :class:`httpcore2.ConnectError`, or
    :class:`httpcore2.ConnectTimeout` when time is up.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with _translating(httpcore2.ConnectTimeout, httpcore2.ConnectError):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            _connect(connection, (address, port), seconds, pulse)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection, str(connection.getpeername()[0])
        except BaseException:
            connection.close()
            raise


def _connect(
    connection: socket.socket, target: tuple[str, int], seconds: float | None, pulse: Pulse
) -> None:
    connection.settimeout(0)
    code = connection.connect_ex(target)
    if code == errno.EINPROGRESS:
        patiently(partial(_await_connection, connection), seconds, pulse)
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _await_connection(connection: socket.socket, seconds: float) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    if not poll.poll(seconds * 1000):
        raise TimeoutError


class PulsedStream(httpcore2.NetworkStream):
    """A connection whose every step is cut into slices, with the pulse asked before each.

    So a deadline holds even where a server sends its headers byte by byte, begins encryption and
    falls silent, or takes nothing of what it is sent.
    """

    def __init__(self, connection: socket.socket, pulse: Pulse, meter: Meter) -> None:
        """Take a connection over, to close it at the end."""
        self._connection = connection
        self._pulse = pulse
        self._meter = meter

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what there is, waiting for it at most ``timeout`` seconds.

        Raises :class:`TooSlow`, too, if it comes too slowly for too long.
        """
        began = time.monotonic()
        with _translating(httpcore2.ReadTimeout, httpcore2.ReadError):
            received = patiently(partial(self._receive, max_bytes), timeout, self._pulse)
        self._meter.note(len(received), time.monotonic() - began, timeout)
        return received

    def _receive(self, max_bytes: int, seconds: float) -> bytes:
        self._connection.settimeout(seconds)
        return self._connection.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write everything, waiting at most ``timeout`` seconds for each bit of it to be taken."""
        rest = memoryview(buffer)
        with _translating(httpcore2.WriteTimeout, httpcore2.WriteError):
            while rest:
                taken = patiently(partial(self._send, rest[:WRITE_BYTES]), timeout, self._pulse)
                rest = rest[taken:]

    def _send(self, piece: memoryview, seconds: float) -> int:
        self._connection.settimeout(seconds)
        return self._connection.send(piece)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        """Go on encrypted, with a peer that proves to be ``server_hostname``."""
        try:
            with _translating(httpcore2.ConnectTimeout, httpcore2.ConnectError):
                encrypted = ssl_context.wrap_socket(
                    self._connection, server_hostname=server_hostname, do_handshake_on_connect=False
                )
                self._connection = encrypted
                patiently(partial(_shake_hands, encrypted), timeout, self._pulse)
        except BaseException:
            self.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore2 asks of a connection that carries one request."""
        if info == "ssl_object" and isinstance(self._connection, ssl.SSLSocket):
            return self._connection
        if info == "server_addr":
            return self._connection.getpeername()
        return None


def _shake_hands(connection: ssl.SSLSocket, seconds: float) -> None:
    connection.settimeout(seconds)
    connection.do_handshake()


@contextmanager
def _translating(late: type[Exception], fault: type[Exception]) -> Iterator[None]:
    """Raise httpcore2's errors instead of the system's."""
    try:
        yield
    except TimeoutError as error:
        raise late(error) from error
    except OSError as error:
        raise fault(error) from error
