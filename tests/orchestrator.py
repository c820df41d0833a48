"""An orchestrator on loopback: leases, silent workers, and every way in which it can fail.

It keeps to docs/contract.md, section 4, and takes nothing that does not: a body with a field too
many or too few is answered with 422.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import unquote

from tests.loopback_server import LoopbackServer

API_KEY = "internal-s3cr3t-key"

#: How long a test waits for what must happen; nothing waits so long unless something is wrong.
PATIENCE_SECONDS = 30.0

_FIELDS = {
    "register": {"worker_type", "gpu_class", "provider", "capacity"},
    "main heartbeat": {
        "status",
        "current_job_id",
        "provider",
        "gpu_class",
        "worker_type",
        "system_info",
    },
    "main claim": {"worker_id", "worker_type", "gpu_class"},
    "progress": {
        "status",
        "progress",
        "phase",
        "worker_id",
        "metrics",
        "error",
        "output_url",
    },
    "buffer heartbeat": {"status", "gpu_class", "capacity", "error"},
    "buffer claim": {"worker_id"},
    "buffer status": {"status", "error", "output_url", "metrics"},
}
_ROUTES = (
    (re.compile(r"/internal/main/workers/([^/]+)/register"), "register"),
    (re.compile(r"/internal/main/workers/([^/]+)/heartbeat"), "main heartbeat"),
    (re.compile(r"/internal/main/jobs/(claim)"), "main claim"),
    (re.compile(r"/internal/jobs/([^/]+)/progress"), "progress"),
    (re.compile(r"/internal/buffer/workers/([^/]+)/heartbeat"), "buffer heartbeat"),
    (re.compile(r"/internal/buffer/jobs/(claim)"), "buffer claim"),
    (re.compile(r"/internal/buffer/jobs/([^/]+)/status"), "buffer status"),
)
_ENDED = ("succeeded", "failed")

#: Status and JSON body of an answer.
Reply = tuple[int, Any]


@dataclass(frozen=True)
class Call:
    """One request, as the orchestrator saw it."""

    kind: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


@dataclass
class Ticket:
    """One job, as the orchestrator knows it."""

    fields: dict[str, Any]
    queue: str
    state: str = "queued"
    holder: str | None = None
    #: How often it was given to a worker.
    given: int = 0
    #: The final report, once it was taken.
    report: dict[str, Any] | None = None


Trouble = Callable[["_Handler", Callable[[], Reply]], None]


def answers(status: int, body: Any = None) -> Trouble:
    """Answer with a status, without looking at what was sent."""
    return lambda handler, _: handler.reply(status, {"detail": "no"} if body is None else body)


def garbage(handler: _Handler, _: Callable[[], Reply]) -> None:
    """Answer like a proxy that has a page for everything."""
    handler.write(200, b"<html>We will be back soon.</html>")


def hangs(handler: _Handler, _: Callable[[], Reply]) -> None:
    """Take the request and say nothing."""
    handler.server.fake.over.wait()


def does_it(handler: _Handler, act: Callable[[], Reply]) -> None:
    """Do what is asked."""
    handler.reply(*act())


def holds(until: threading.Event, then: Trouble = does_it) -> Trouble:
    """Take the request, and go on with it only when an event allows it."""

    def hold(handler: _Handler, act: Callable[[], Reply]) -> None:
        until.wait(PATIENCE_SECONDS)
        then(handler, act)

    return hold


def drops(handler: _Handler, _: Callable[[], Reply]) -> None:
    """Hang up on the request."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def drops_answer(handler: _Handler, act: Callable[[], Reply]) -> None:
    """Do what is asked, and hang up before saying so."""
    act()
    handler.connection.shutdown(socket.SHUT_RDWR)


@dataclass
class FakeOrchestrator:
    """Gives away jobs and takes them back from workers that fall silent."""

    #: Scaled down from the contract's 30 s.
    silence_seconds: float = 30.0
    knows_registration: bool = True
    url: str = ""
    #: What goes wrong, by a part of the path.
    trouble: dict[str, Trouble] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)
    expired: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Be there, until the end of the context."""
        with _Server(("127.0.0.1", 0), _Handler) as server:
            server.fake = self
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                self.over.set()
                server.shutdown()
                thread.join()

    def submit(self, fields: dict[str, Any], queue: str = "main") -> str:
        """Put a job into a queue, whatever its fields are; return the name it goes by here."""
        name = str(fields.get("buffer_job_id") or fields.get("musetalk_job_id"))
        with self.changed:
            self.tickets[name] = Ticket(fields, queue)
        return name

    def take_away(self, name: str) -> None:
        """Give a job to somebody else."""
        with self.changed:
            self.tickets[name].state = "leased"
            self.tickets[name].holder = "somebody-else"

    def wait(self, what: Callable[[], Any]) -> Any:
        """Wait until something is so, and return it."""
        with self.changed:
            met = self.changed.wait_for(what, PATIENCE_SECONDS)
        assert met, "this never came to pass"
        return met

    def report(self, name: str) -> dict[str, Any]:
        """Wait for the final report on a job, and return it."""
        return dict(self.wait(lambda: self.tickets[name].report))

    def said(self, kind: str) -> list[dict[str, Any]]:
        """Return the bodies of all requests of a kind."""
        with self.changed:
            return [call.body for call in self.calls if call.kind == kind]

    # -- what it does with requests, the lock held --------------------------------------------

    def act(self, kind: str, name: str, body: dict[str, Any]) -> Reply:
        """Answer one request."""
        if set(body) != _FIELDS[kind]:
            return 422, {"detail": f"fields of {kind}: {sorted(set(body) ^ _FIELDS[kind])}"}
        if kind == "register":
            return (200, {"detail": "ok"}) if self.knows_registration else (404, {"detail": "?"})
        if kind.endswith("heartbeat"):
            self.heard[name] = time.monotonic()
            return 200, {"detail": "ok"}
        if kind.endswith("claim"):
            return self._give(kind.split(maxsplit=1)[0], body["worker_id"])
        return self._take(self._ticket(kind, name), body)

    def _ticket(self, kind: str, name: str) -> Ticket | None:
        if kind == "buffer status":
            return self.tickets.get(name)
        known = (t for n, t in self.tickets.items() if name in (n, _job_id(t)))
        return next(known, None)

    def _give(self, queue: str, worker_id: str) -> Reply:
        self.heard[worker_id] = time.monotonic()
        self._expire()
        for ticket in self.tickets.values():
            if (ticket.queue, ticket.state) == (queue, "queued"):
                ticket.state, ticket.holder = "leased", worker_id
                ticket.given += 1
                return 200, {"job": ticket.fields}
        return 200, {"job": None}

    def _expire(self) -> None:
        for ticket in self.tickets.values():
            silent = time.monotonic() - self.heard.get(ticket.holder or "", time.monotonic())
            if ticket.state == "leased" and silent > self.silence_seconds:
                ticket.state, ticket.holder = "queued", None
                self.expired += 1

    def _take(self, ticket: Ticket | None, body: dict[str, Any]) -> Reply:
        if ticket is None:
            return 404, {"detail": "no such job"}
        # Buffer workers do not say who they are when they report.
        ours = body.get("worker_id", ticket.holder) == ticket.holder
        if ours and ticket.state == "leased":
            if body["status"] in _ENDED:
                ticket.state, ticket.report = body["status"], body
            return 200, {"detail": "ok"}
        if ours and body == ticket.report:
            return 200, {"detail": "known"}
        return 409, {"detail": "not your job"}


def _job_id(ticket: Ticket) -> str:
    return str(ticket.fields.get("musetalk_job_id"))


class _Server(LoopbackServer):
    fake: FakeOrchestrator


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        fake = self.server.fake
        self.close_connection = True
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        matches = ((route.fullmatch(self.path), kind) for route, kind in _ROUTES)
        name, kind = next(((unquote(m[1]), kind) for m, kind in matches if m), ("", "unknown"))
        headers = {key.lower(): value for key, value in self.headers.items()}
        with fake.changed:
            fake.calls.append(Call(kind, self.path, body, headers, time.monotonic()))
            fake.changed.notify_all()
            trouble = next((t for part, t in fake.trouble.items() if part in self.path), None)
        if kind == "unknown":
            self.reply(404, {"detail": "Not Found"})
        elif headers.get("x-internal-api-key") != API_KEY:
            self.reply(401, {"detail": f"wrong key {headers.get('x-internal-api-key')}"})
        elif trouble:
            trouble(self, lambda: self._act(kind, name, body))
        else:
            self.reply(*self._act(kind, name, body))

    def _act(self, kind: str, name: str, body: dict[str, Any]) -> Reply:
        with self.server.fake.changed:
            reply = self.server.fake.act(kind, name, body)
            self.server.fake.changed.notify_all()
            return reply

    def reply(self, status: int, body: Any) -> None:
        self.write(status, json.dumps(body).encode())

    def write(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Be quiet."""
