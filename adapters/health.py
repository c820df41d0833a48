"""Whether the worker can take a job, and the page that says so (docs/contract.md section 3)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

#: Whoever asks and then says nothing is not listened to for longer.
PATIENCE_SECONDS = 5.0
#: How long the end of the worker may wait for the end of its page.
NAP_SECONDS = 0.05


class HealthStatus(StrEnum):
    """Name how a worker stands, in the contract's words."""

    STARTING = "starting"
    OK = "ok"
    UNHEALTHY = "unhealthy"


class Health:
    """Keep how the worker stands; any thread may ask or tell, and what is broken stays broken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status = HealthStatus.STARTING
        self._detail: Mapping[str, Any] = {}

    @property
    def status(self) -> HealthStatus:
        """Return how the worker stands."""
        return self._status

    @property
    def http_status(self) -> int:
        """Return what an HTTP door answers with."""
        ready = self._status is HealthStatus.OK
        return HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE

    def ready(self, **detail: Any) -> None:
        """Tell that jobs can be taken, and what is worth knowing of the worker."""
        self._turn(HealthStatus.OK, detail)

    def unhealthy(self, reason: str) -> None:
        """Tell that no further job can be taken, and why."""
        self._turn(HealthStatus.UNHEALTHY, {"reason": reason})

    def short(self) -> dict[str, Any]:
        """Return what ``/hc`` answers."""
        return {"status": self._status.value}

    def full(self) -> dict[str, Any]:
        """Return what ``/health`` answers."""
        with self._lock:
            return {"status": self._status.value, **self._detail}

    def _turn(self, status: HealthStatus, detail: Mapping[str, Any]) -> None:
        with self._lock:
            if self._status is not HealthStatus.UNHEALTHY:
                self._status, self._detail = status, {**self._detail, **detail}


@contextmanager
def serve_health(health: Health, host: str, port: int) -> Iterator[int]:
    """Answer ``/hc`` and ``/health`` from a thread, and lend the port that is served.

    Port 0 takes a free one. Raises :class:`OSError` if the port cannot be had.
    """
    with _Server((host, port), _Page) as server:
        server.health = health
        serve, often = server.serve_forever, {"poll_interval": NAP_SECONDS}
        thread = threading.Thread(target=serve, kwargs=often, name="health", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    health: Health

    def server_bind(self) -> None:
        # Without HTTPServer's look-up of the host's name, which may take its time.
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whoever hangs up early is no news."""


class _Page(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE_SECONDS

    def do_GET(self) -> None:
        """Answer the two pages there are."""
        health = self.server.health
        pages = {"/hc": health.short, "/health": health.full}
        page = pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = json.dumps(page()).encode()
        self.send_response(health.http_status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Be quiet: who asks every ten seconds would fill the log."""
