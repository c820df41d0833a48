"""Drive the HTTP door as its callers do: over a socket, against the server that is deployed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import requests
from pydantic import SecretStr

from adapters.config import Config
from adapters.http.access import open_listener, url_of
from adapters.http.app import Door, build_app
from adapters.http.jobs import Room
from adapters.http_server import served_in_thread
from adapters.log import open_log
from handler import Runtime
from handler.testing import FAKE_FILES

#: Longer than anything here takes; who waits that long waits for ever.
PATIENCE_SECONDS = 20
#: A job that a worker made of fakes can do.
MEDIA = dict(zip(("video_url", "audio_url"), FAKE_FILES, strict=True))
ROOT = Path(__file__).parents[1]
WORKER = Path(sys.executable).with_name("musetalk-worker")


@dataclass(frozen=True)
class Reply:
    """One answer, read to its end."""

    status: int
    headers: Any
    body: Any


class HttpDriver:
    """An orchestrator that speaks to one worker."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def submit(self, job: dict[str, Any]) -> str:
        """Hand a job over; return the id to ask for it by."""
        reply = self.ask("POST", "/jobs", json=job)
        assert reply.status == 202, reply
        return reply.body["id"]

    def wait(self, job_id: str) -> dict[str, Any]:
        """Return what came of a job, once it has ended."""
        *_, (name, result) = self.events(job_id)
        assert name == "result"
        return result

    def cancel(self, job_id: str) -> Reply:
        """Take a job back."""
        return self.ask("DELETE", f"/jobs/{job_id}")

    def look(self, job_id: str) -> Reply:
        """Ask how a job stands."""
        return self.ask("GET", f"/jobs/{job_id}")

    def generate(self, job: Any) -> Reply:
        """Have a job done and wait for it."""
        return self.ask("POST", "/generate", json=job)

    def events(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the events of a job, until the worker ends them."""
        url = f"{self.url}/jobs/{job_id}/events"
        with requests.get(
            url, headers=self._headers, stream=True, timeout=PATIENCE_SECONDS
        ) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream"), answer.text
            name, started = "", time.monotonic()
            for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
                assert time.monotonic() - started < PATIENCE_SECONDS, "the job does not end"
                key, _, value = line.partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    yield name, json.loads(value)

    def ask(self, method: str, path: str, **request: Any) -> Reply:
        """Make one request."""
        headers = self._headers | request.pop("headers", {})
        answer = requests.request(
            method, self.url + path, headers=headers, timeout=PATIENCE_SECONDS, **request
        )
        is_json = answer.headers.get("Content-Type") == "application/json"
        return Reply(answer.status_code, answer.headers, answer.json() if is_json else answer.text)


@dataclass(frozen=True)
class OpenDoor:
    """A door in this process, from both of its sides."""

    door: Door
    driver: HttpDriver
    log: io.StringIO

    @property
    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of the log."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@contextmanager
def open_door(
    runtime: Runtime | None, token: str | None = None, room: Room | None = None
) -> Iterator[OpenDoor]:
    """Serve a runtime from a thread of this process; None is one that is still being loaded."""
    log = io.StringIO()
    door = Door(open_log(log), room=room)
    secret = SecretStr(token) if token else None
    with (
        open_listener(Config.from_env({"PORT": "0"})) as listener,
        served_in_thread(build_app(door, secret), listener),
    ):
        if runtime is not None:
            door.queue.open(runtime)
        yield OpenDoor(door, HttpDriver(url_of(listener), token), log)


@dataclass(frozen=True)
class WorkerProcess:
    """A worker in a process of its own, and what is known of it."""

    process: subprocess.Popen[str]
    driver: HttpDriver

    def tell(self, word: str) -> None:
        """Send a line to its standard input."""
        assert self.process.stdin
        print(word, file=self.process.stdin, flush=True)

    def await_log(self, message: str) -> dict[str, Any]:
        """Return the next line of its log that has this message."""
        assert self.process.stderr
        return _await_log(self.process.stderr, message)

    def exit_code(self) -> int:
        """Wait for its end."""
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def worker_process(*command: str, token: str | None = None, **env: str) -> Iterator[WorkerProcess]:
    """Start a worker that listens, whatever else it still has to do; the command is ``serve``."""
    process = subprocess.Popen(
        command or [str(WORKER), "serve"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PORT": "0", **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stderr
            url = _await_log(process.stderr, "listening")["url"]
            yield WorkerProcess(process, HttpDriver(url, token))
        finally:
            process.kill()


def _await_log(stream: IO[str], message: str) -> dict[str, Any]:
    lines = []
    for line in stream:
        lines.append(line)
        if line.startswith("{") and json.loads(line)["message"] == message:
            return json.loads(line)
    raise AssertionError(f"{message!r} was not logged, but:\n{''.join(lines)}")
