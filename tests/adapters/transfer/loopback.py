"""A real server on loopback that answers as it is told."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.loopback_server import LoopbackServer

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Seen:
    """One request, as the server saw it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Takes a request down and gives the next answer; the last one is given for ever."""

    server: Server
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        site = self.server.site
        with site.lock:
            site.seen.append(Seen(self.command, self.path, headers, self.rfile.read(length)))
            reply = site.answers.pop(0) if len(site.answers) > 1 else site.answers[0]
        self.close_connection = True
        reply(self)

    do_GET = do_HEAD = do_PUT = do_POST = answer  # noqa: N815 - what http.server looks for

    def log_message(self, *args: Any) -> None:
        """Be quiet."""


class Server(LoopbackServer):
    #: Wait for all answers at the end, so that what was seen is complete.
    daemon_threads = False
    site: Site

    def get_request(self) -> Any:
        request = super().get_request()
        self.site.connections += 1
        return request


@dataclass
class Site:
    """What a test tells its server, and what the server has seen."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    #: Set when the test is over: a server that stands still waits for it.
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def serving(
    *answers: Answer, tls: ssl.SSLContext | None = None, host: str = HOST
) -> Iterator[Site]:
    with Server((host, 0), Handler) as server:
        server.site = site = Site(answers=list(answers))
        site.url = f"{'https' if tls else 'http'}://{host}:{server.server_port}"
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            site.over.set()
            server.shutdown()
            thread.join()


@contextmanager
def mute() -> Iterator[int]:
    """Open a port behind which nobody says or takes anything."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def unanswered() -> Iterator[int]:
    """Open a port whose queue is full: nobody even picks up."""
    with socket.create_server((HOST, 0), backlog=0) as listener:
        with socket.create_connection(listener.getsockname()):
            yield listener.getsockname()[1]


def status(code: int, **headers: str) -> Answer:
    """Answer with a status and nothing else."""
    return body(b"", code, **headers)


def body(content: bytes, code: int = 200, **headers: str) -> Answer:
    """Answer with some bytes; a header's underscores stand for hyphens."""

    def answer(handler: Handler) -> None:
        handler.send_response(code)
        declared = {"Content_Length": str(len(content)), **headers}
        for name, value in declared.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def versioned(content: bytes, etag: str, *, breaks_at: int | None = None) -> Answer:
    """Answer with a file or, if it is still the same, with the rest that is asked for.

    Where it ``breaks_at``, a byte of the file, the connection is reset.
    """

    def answer(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        same = handler.headers.get("If-Range") == etag
        start = int(asked[1]) if asked and same else 0
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.send_header("ETag", etag)
        if start:
            whole = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.send_header("Content-Range", whole)
        handler.end_headers()
        handler.wfile.write(content[start:breaks_at])
        if breaks_at is not None:
            _reset(handler.connection)

    return answer


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Before anybody can say goodbye.
    os.close(connection.detach())


def endless(handler: Handler) -> None:
    """Answer with bytes that never end, nor say so."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.site.over.is_set():
        handler.wfile.write(b"\0" * 65536)


def silent(handler: Handler) -> None:
    """Take the request and say nothing."""
    handler.server.site.over.wait()


def dripping_body(handler: Handler) -> None:
    """Send a byte now and then, often enough never to stall."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    _drip(handler)


def dripping_headers(handler: Handler) -> None:
    """Never come to the end of the headers."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    _drip(handler)


def _drip(handler: Handler) -> None:
    while not handler.server.site.over.wait(0.01):
        handler.wfile.write(b"x")


@dataclass(frozen=True)
class Authority:
    """Somebody who vouches for one server, and those who believe it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def authority_for(name: str, folder: Path, *, expired: bool = False) -> Authority:
    """Make a certificate for a host name or an address."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(name, key, expired=expired)
    pem = folder / "server.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return Authority(server, ssl.create_default_context(cafile=pem))


def _certificate(name: str, key: ec.EllipticCurvePrivateKey, *, expired: bool) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    names: list[x509.GeneralName] = (
        [x509.IPAddress(ipaddress.ip_address(name))] if name[0].isdigit() else [x509.DNSName(name)]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=2))
        .not_valid_after(now + dt.timedelta(hours=-1 if expired else 1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
