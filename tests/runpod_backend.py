"""What RunPod's servers are to one of its serverless workers, on loopback.

It speaks what the SDK (1.12) speaks: long polls for jobs and for jobs to stop, answers, progress,
heartbeats. Like RunPod it takes only strict JSON of at most 10 MB, and hands no job to a connection
that is closed.
"""

from __future__ import annotations

import json
import re
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.loopback_server import LoopbackServer

#: RunPod's own poll lasts up to 90 s; a test would notice who waits for the end of this one.
POLL_SECONDS = 20.0
MAX_ANSWER_BYTES = 10_000_000
API_KEY = "the-key-of-this-worker"

_PATH = re.compile(r"/v2/endpoint/(job-take|job-take-batch|job-stop|job-done|ping)/pod-7(?:/(.+))?")

Found = TypeVar("Found")


@dataclass
class Post:
    """One word of the worker about a job: how far it is, or how it ended."""

    job_id: str
    body: dict[str, Any]
    status: int
    #: Seconds on the monotonic clock.
    arrived: float
    answered: float = float("inf")

    @property
    def final(self) -> bool:
        """Tell whether it ends the job."""
        return self.body.get("status") != "IN_PROGRESS"


@dataclass
class _State:
    waiting: deque[dict[str, Any]] = field(default_factory=deque)
    to_stop: deque[str] = field(default_factory=deque)
    taken: list[str] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    pings: list[dict[str, str]] = field(default_factory=list)
    #: How often jobs were asked for while there was no answer but 500.
    vain: int = 0
    broken: bool = False
    over: bool = False

    @property
    def silent(self) -> bool:
        """Tell whether there is nothing to say to somebody who asks for jobs."""
        return not (self.waiting or self.broken or self.over)


class RunpodBackend:
    """Hands out jobs, passes on who stops them, and takes down what comes back."""

    def __init__(self, slow_progress_seconds: float = 0.0) -> None:
        """Take this long to answer a report of progress."""
        self.slow_progress_seconds = slow_progress_seconds
        #: The statuses with which the next answers are refused, and not kept.
        self.refusals: deque[int] = deque()
        self._changed = threading.Condition()
        self._state = _State()
        self._submitted = 0

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.backend = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._state.over = True
            self._changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def env(self) -> dict[str, str]:
        """Return what RunPod sets in a worker."""
        base = f"http://127.0.0.1:{self._server.server_address[1]}/v2/endpoint"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_AI_API_KEY": API_KEY,
            "RUNPOD_POD_ID": "pod-7",
            "RUNPOD_ENDPOINT_ID": "endpoint",
        }

    # -- what a client does ----------------------------------------------------------------------

    def submit(self, job: object) -> str:
        """Queue a job as a request's ``input`` and return RunPod's id of it."""
        return self.send(input=job)

    def send(self, **request: object) -> str:
        """Queue a request as it is, and return RunPod's id of it."""
        with self._changed:
            self._submitted += 1
            job_id = f"request-{self._submitted}-e1"
            self._state.waiting.append({"id": job_id, **request})
            self._changed.notify_all()
        return job_id

    def break_down(self) -> None:
        """Answer whoever asks for jobs with 500 from now on, also those who wait already."""
        with self._changed:
            self._state.broken = True
            self._changed.notify_all()

    def recover(self) -> None:
        """Hand out jobs again."""
        self._state.broken = False

    def stop(self, job_id: str) -> None:
        """Cancel a job, or let it time out: to a worker these are the same."""
        with self._changed:
            self._state.to_stop.append(job_id)
            self._changed.notify_all()

    # -- what a test asks ------------------------------------------------------------------------

    def final(self, job_id: str, timeout: float) -> Post:
        """Wait for the end of a job."""
        return self.wait_for(lambda: self._last(job_id), timeout, f"the end of {job_id}")

    def posts(self, job_id: str) -> list[Post]:
        """Return what was said about a job, in the order in which it came."""
        return [post for post in self._state.posts if post.job_id == job_id]

    def progress(self, job_id: str, timeout: float) -> Post:
        """Wait for the first report of a job's progress."""
        return self.wait_for(lambda: next(iter(self.posts(job_id)), None), timeout, "progress")

    def waiting(self) -> list[str]:
        """Return the jobs that no worker has taken."""
        return [job["id"] for job in self._state.waiting]

    def taken(self) -> list[str]:
        """Return the jobs that a worker has taken, in order."""
        return list(self._state.taken)

    def vain(self) -> int:
        """Return how often jobs were asked for in vain."""
        return self._state.vain

    def pings(self) -> list[dict[str, str]]:
        """Return the heartbeats, each the query that it carried."""
        return list(self._state.pings)

    def wait_for(self, look: Callable[[], Found | None], timeout: float, what: str) -> Found:
        """Wait until a look finds something."""
        with self._changed:
            found = self._changed.wait_for(look, timeout)
        if not found:
            raise TimeoutError(f"{what} did not come within {timeout} s")
        return found

    def _last(self, job_id: str) -> Post | None:
        return next((post for post in self.posts(job_id) if post.final), None)

    # -- what the worker gets --------------------------------------------------------------------

    def take(self, most: int, gone: Callable[[], bool]) -> list[dict[str, Any]] | None:
        with self._changed:
            self._changed.wait_for(lambda: not self._state.silent, POLL_SECONDS)
            if self._state.broken:
                self._state.vain += 1
                self._changed.notify_all()
                return None
            if gone():
                return []
            count = min(most, len(self._state.waiting))
            jobs = [self._state.waiting.popleft() for _ in range(count)]
            self._state.taken += [job["id"] for job in jobs]
            self._changed.notify_all()
            return jobs

    def stops(self) -> list[str]:
        with self._changed:
            self._changed.wait_for(lambda: self._state.to_stop or self._state.over, POLL_SECONDS)
            return [self._state.to_stop.popleft() for _ in range(len(self._state.to_stop))]

    def accept(self, job_id: str, raw: bytes) -> Post:
        try:
            body = json.loads(raw, parse_constant=_refuse)
            status = 200 if len(raw) <= MAX_ANSWER_BYTES else 413
        except ValueError:
            body, status = {}, 400
        post = Post(job_id, body, status, time.monotonic())
        with self._changed:
            if post.final and self.refusals:
                post.status = self.refusals.popleft()
            if post.status == 200:
                self._state.posts.append(post)
            self._changed.notify_all()
            if not post.final:
                self._changed.wait_for(lambda: self._state.over, self.slow_progress_seconds)
        post.answered = time.monotonic()
        return post

    def heard(self, query: dict[str, str]) -> None:
        with self._changed:
            self._state.pings.append(query)
            self._changed.notify_all()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


class _Server(LoopbackServer):
    backend: RunpodBackend


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        backend, (kind, _, query) = self.server.backend, self._target()
        if kind in {"job-take", "job-take-batch"}:
            jobs = backend.take(int(query.get("batch_size", 1)), self._hung_up)
            status = 500 if jobs is None else 200 if jobs else 204
            one_by_one = kind == "job-take"
            self._reply(status, (jobs[0] if one_by_one else jobs) if jobs else None)
        elif kind == "job-stop":
            stops = backend.stops()
            self._reply(200 if stops else 204, {"jobsToStop": stops} if stops else None)
        else:
            backend.heard(query)
            self._reply(200, {})

    def do_POST(self) -> None:
        _, job_id, _ = self._target()
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(self.server.backend.accept(job_id, raw).status, {})

    def _target(self) -> tuple[str, str, dict[str, str]]:
        target = urlsplit(self.path)
        match = _PATH.fullmatch(target.path)
        assert match, self.path
        assert self.headers["Authorization"] == API_KEY
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        return match[1], match[2] or "", query

    def _hung_up(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _reply(self, status: int, content: Any) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Be quiet."""
