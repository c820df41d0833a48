"""A store that speaks S3, with or without conditional writes, and as unreliable as it is told.

It is moto's server behind a door of our own: the door compares signed checksums, as every store
does and moto does not, answers conditions with a 501 where B2 would, and lets faults happen.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from moto.server import ThreadedMotoServer

from adapters.transfer.bucket import s3_client
from handler.record import Record
from tests.loopback_server import LoopbackServer

REGION = "us-west-004"
#: A name of its own: what moto keeps, it keeps for all its servers of a process.
BUCKET = "results"
PREFIX = "out"


@dataclass
class Service:
    """What a test tells its store, and what it can see there."""

    url: str
    #: A client behind the door, on which no fault happens.
    client: Any
    compares: bool = True
    #: What a store that does not compare answers to conditions; 200 is for not looking at them.
    otherwise: int = 501
    faults: list[Fault] = field(default_factory=list)
    #: Method and target of every request, in their order.
    seen: list[tuple[str, str]] = field(default_factory=list)
    hanging: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def names(self) -> list[str]:
        """Return what everybody can see in the bucket."""
        listed = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [entry["Key"] for entry in listed]

    def unfinished(self) -> list[str]:
        """Return what nobody can see, and somebody pays for."""
        listed = self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return [entry["Key"] for entry in listed]

    def read(self, key: str) -> bytes:
        """Return an object."""
        with self.client.get_object(Bucket=BUCKET, Key=key)["Body"] as content:
            return bytes(content.read())

    def sha256(self, job_id: str) -> str:
        """Return the checksum of a job's video as it lies there."""
        return hashlib.sha256(self.read(f"{PREFIX}/{job_id}.mp4")).hexdigest()

    def record(self, job_id: str) -> Record:
        """Return the record of a job."""
        record = Record.decode(self.read(f"{PREFIX}/{job_id}.json"), job_id)
        assert record is not None
        return record

    def empty(self) -> None:
        """Forget everything."""
        for key in self.names():
            self.client.delete_object(Bucket=BUCKET, Key=key)
        for upload in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
            whole = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            self.client.abort_multipart_upload(Bucket=BUCKET, **whole)
        self.compares = True
        self.otherwise = 501
        self.faults.clear()
        self.seen.clear()
        self.hanging.clear()


#: Does something to a request instead of answering it; returns False to have it answered all the
#: same.
Act = Callable[["Door"], bool]


@dataclass
class Fault:
    """What happens to requests of a method whose path ends in a word, or whose query has it."""

    method: str
    target: str
    act: Act
    times: int = 1

    def strikes(self, door: Door) -> bool:
        path, _, query = door.path.partition("?")
        return (
            self.times > 0
            and door.command == self.method
            and (path.endswith(self.target) or self.target in query)
        )


def refuse(code: int, word: str) -> Act:
    """Answer with an error."""

    def act(door: Door) -> bool:
        door.take()
        door.fail(code, word)
        return True

    return act


def reset(door: Door) -> bool:
    """Hang up the hard way when half of the request is there."""
    door.rfile.read(int(door.headers.get("Content-Length", 0)) // 2)
    door.hang_up()
    return True


def forget_answer(door: Door) -> bool:
    """Do what was asked, and let nobody know."""
    door.forward(door.take())
    door.hang_up()
    return True


def hang(door: Door) -> bool:
    """Take half of the request and stand still."""
    door.rfile.read(int(door.headers.get("Content-Length", 0)) // 2)
    door.server.service.hanging.set()
    door.server.service.over.wait()
    return True


def damage(door: Door) -> bool:
    """Let a bit flip on the way."""
    body = bytearray(door.take())
    body[len(body) // 2] ^= 1
    door.serve(bytes(body))
    return True


class Door(BaseHTTPRequestHandler):
    """Passes on to moto what it does not answer itself."""

    server: DoorServer
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        service = self.server.service
        self.close_connection = True
        service.seen.append((self.command, self.path))
        for fault in service.faults:
            if fault.strikes(self):
                fault.times -= 1
                if fault.act(self):
                    return
        self.serve(self.take())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - http.server's names

    def take(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def serve(self, body: bytes) -> None:
        service = self.server.service
        signed = self.headers.get("x-amz-content-sha256", "")
        conditional = "If-None-Match" in self.headers or "If-Match" in self.headers
        if signed != hashlib.sha256(body).hexdigest():
            self.fail(400, "XAmzContentSHA256Mismatch")
        elif conditional and not service.compares and service.otherwise != 200:
            self.fail(service.otherwise, "NotImplemented")
        else:
            self.reply(*self.forward(body))

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=10)
        try:
            ignored = () if self.server.service.compares else ("If-None-Match", "If-Match")
            heard = {name: value for name, value in self.headers.items() if name not in ignored}
            upstream.request(self.command, self.path, body, heard)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    def fail(self, code: int, word: str) -> None:
        text = f"<Error><Code>{word}</Code><Message>no</Message></Error>".encode()
        self.reply(code, [("Content-Type", "application/xml")], text)

    def reply(self, code: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(code)
        for name, value in headers:
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        length = dict(headers).get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang_up(self) -> None:
        never_linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, never_linger)
        self.connection.close()

    def log_message(self, *args: Any) -> None:
        """Be quiet."""


class DoorServer(LoopbackServer):
    service: Service
    upstream: str


@contextmanager
def open_service() -> Iterator[Service]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    client = s3_client(f"http://{host}:{port}", REGION, "key-id", "key-secret")
    place = {"LocationConstraint": REGION}
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
    with DoorServer(("127.0.0.1", 0), Door) as server:
        server.upstream = urlsplit(f"http://{host}:{port}").netloc
        server.service = service = Service(f"http://127.0.0.1:{server.server_port}", client)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield service
        finally:
            service.over.set()
            server.shutdown()
            thread.join()
            client.close()
            moto.stop()
