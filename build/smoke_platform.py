"""Everything around a worker that is tried: its media, RunPod, the orchestrator, on loopback."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

#: Platforms let those wait who ask for jobs when there are none.
POLL_SECONDS = 1.0


class Platform(ThreadingHTTPServer):
    """Serves media, hands out one job on them and takes down how it ended."""

    daemon_threads = True

    def __init__(self, job_id: str, media: Mapping[str, bytes]) -> None:
        """Offer ``media`` under the fields of the job that are to name them."""
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.media = {f"/{field}": content for field, content in media.items()}
        self.job = {"musetalk_job_id": job_id} | {field: f"{self.url}/{field}" for field in media}
        self.ends = queue.SimpleQueue[dict[str, Any]]()
        self._untaken = queue.SimpleQueue[dict[str, Any]]()
        self._untaken.put(self.job)

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Answer until the end of the context."""
        with self:
            threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
            yield self
            self.shutdown()

    def take(self) -> dict[str, Any] | None:
        """Return the job to the first who asks."""
        with suppress(queue.Empty):
            return self._untaken.get(timeout=POLL_SECONDS)
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Workers hang up when they end."""


class _Answers(BaseHTTPRequestHandler):
    """Speak as much as is needed of what RunPod and the orchestrator speak."""

    server: Platform
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in self.server.media:
            self._reply(self.server.media[path])
        elif path.startswith("/job-take"):
            job = self.server.take()
            request = job and {"id": job["musetalk_job_id"], "input": job}
            self._tell([request] if request and "batch" in path else request)
        elif path.startswith("/job-stop"):
            time.sleep(POLL_SECONDS)
            self._tell(None)
        else:
            self._tell({})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = urlsplit(self.path).path
        if path.endswith("/claim"):
            self._tell({"job": self.server.take()})
            return
        tells_of_job = path.startswith("/job-done/") or path.endswith("/progress")
        if tells_of_job and body.get("status") not in {"IN_PROGRESS", "running"}:
            self.server.ends.put(body)
        self._tell({"detail": "ok"})

    def _tell(self, content: Any) -> None:
        self._reply(b"" if content is None else json.dumps(content).encode())

    def _reply(self, content: bytes) -> None:
        self.send_response(200 if content else 204)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""
