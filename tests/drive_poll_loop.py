"""Drive the poll loop as an orchestrator does: in this process, or in one that can be killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from adapters.config import Config
from adapters.health import Health
from adapters.log import open_log
from adapters.orchestrator import Backoff
from adapters.poll_loop import Pace, PollWorker
from handler.errors import WorkerBroken
from handler.ports import Clip, Runtime, Scene
from handler.progress import Tick
from handler.testing import FakeAvatar, FakeEngine
from tests.orchestrator import API_KEY, PATIENCE_SECONDS, FakeOrchestrator

ROOT = Path(__file__).parents[1]
#: A hurry that tests can afford, and a machine under load still keeps up with.
BRISK = Pace(
    heartbeat_seconds=0.1,
    heartbeat_patience_seconds=0.5,
    progress_seconds=0.01,
    missing_seconds=0.5,
    backoff=Backoff(first_seconds=0.05, longest_seconds=0.2),
)


def environment(orchestrator: FakeOrchestrator, place: Path, **env: str) -> dict[str, str]:
    """Return the predecessor's variables for a main worker, and a place for its files."""
    ours = {
        "WORKER_ID": "worker-1",
        "WORKER_TYPE": "main",
        "PROVIDER": "local",
        "GPU_CLASS_NAME": "RTX-local-buffer",
        "ORCHESTRATOR_BASE_URL": orchestrator.url,
        "INTERNAL_API_KEY": API_KEY,
        "POLL_INTERVAL_SEC": "0.05",
        "BUFFER_POLL_INTERVAL_SEC": "0.05",
        "OUTPUT_DIR": str(place / "out"),
        "AVATAR_CACHE_DIR": str(place / "avatars"),
        "PORT": "0",
    }
    return {name: value for name, value in (ours | env).items() if value}


#: What makes a buffer worker of a main worker.
AS_BUFFER = {"WORKER_ID": "", "BUFFER_WORKER_ID": "buffer-1"}


#: Makes jobs as the orchestrator gives them away, of a name and further fields.
Order = Callable[..., dict[str, Any]]


class Filming(FakeEngine):
    """A fake engine that goes on until it is told to stop, or its job is ended."""

    def __init__(self) -> None:
        super().__init__()
        #: Set once it films.
        self.rolling = threading.Event()
        self.cut = threading.Event()

    def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        self.rolling.set()
        while not self.cut.wait(0.001):
            tick(0.5)
        return super().animate(avatar, scene, target, tick)


class PollLoopDriver:
    """A worker in this process and its orchestrator; submit jobs, wait for results, cancel."""

    def __init__(
        self,
        runtime: Runtime,
        place: Path,
        *,
        orchestrator: FakeOrchestrator | None = None,
        pace: Pace = BRISK,
        **env: str,
    ) -> None:
        self.orchestrator = orchestrator or FakeOrchestrator()
        self.health = Health()
        #: Set once the worker found itself broken.
        self.broken: WorkerBroken | None = None
        self._runtime = runtime
        self._place = place
        self._pace = pace
        self._env = env
        self._lines = io.StringIO()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if not self.orchestrator.url:
            self._stack.enter_context(self.orchestrator.serving())
        config = Config.from_env(environment(self.orchestrator, self._place, **self._env))
        log = open_log(self._lines)
        self.worker = PollWorker(config, lambda: self._runtime, log, self.health, self._pace)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        self.worker.give_back()
        self.join()
        self._stack.close()

    @property
    def log(self) -> list[dict[str, Any]]:
        """Return what an operator reads."""
        return [json.loads(line) for line in self._lines.getvalue().splitlines()]

    def logged(self, message: str) -> list[dict[str, Any]]:
        """Return the lines with one message."""
        return [line for line in self.log if line["message"] == message]

    def submit(self, job: dict[str, Any]) -> str:
        """Hand in a job; return the handle to wait by."""
        queue = "buffer" if "buffer_job_id" in job else "main"
        return self.orchestrator.submit(job, queue)

    def wait(self, handle: str) -> dict[str, Any]:
        """Wait for a job's end; return it as every other door would."""
        return outcome(self.orchestrator, handle)

    def cancel(self, handle: str) -> None:
        """Take a job back."""
        self.orchestrator.take_away(handle)

    def join(self) -> None:
        """Wait until the worker has come to its end."""
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        try:
            self.worker.run()
        except WorkerBroken as broken:
            self.broken = broken


def outcome(orchestrator: FakeOrchestrator, handle: str) -> dict[str, Any]:
    """Wait for a job's end; return as much of it as is told, in the words of every other door."""
    report = orchestrator.report(handle)
    if report["status"] == "failed":
        return dict(json.loads(report["error"]))
    done = {"output_url": report["output_url"], "metrics": report["metrics"]}
    job_id = orchestrator.tickets[handle].fields["musetalk_job_id"]
    return {"status": "success", "musetalk_job_id": job_id, **done}


@dataclass
class Child:
    """A worker in a process of its own."""

    process: subprocess.Popen[str]
    #: What an operator has read so far.
    log: list[dict[str, Any]] = field(default_factory=list)

    def await_moment(self, moment: str) -> None:
        """Wait until :mod:`tests.poll_worker` meets its fate."""
        assert self.process.stdout
        assert self.process.stdout.readline().strip() == moment

    def go_on(self) -> None:
        """Let a worker whose fate is to wait go on."""
        assert self.process.stdin
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()

    def await_log(self, message: str) -> dict[str, Any]:
        """Read the log up to a message, and return its line."""
        assert self.process.stderr
        for text in self.process.stderr:
            self.log.append(json.loads(text))
            if self.log[-1]["message"] == message:
                return self.log[-1]
        raise AssertionError(f"never logged: {message}")

    def kill(self) -> None:
        """Give it no chance to say goodbye."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask it to come to an end, as ``docker stop`` does."""
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self, within_seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end."""
        return self.process.wait(within_seconds)


@contextmanager
def child(
    orchestrator: FakeOrchestrator, place: Path, *command: str, **env: str
) -> Iterator[Child]:
    """Start a worker: ``tests.poll_worker``, with a fake engine, unless another is named."""
    process = subprocess.Popen(
        command or (sys.executable, "-m", "tests.poll_worker"),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment(orchestrator, place, **env)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Child(process)
    finally:
        process.kill()
        process.communicate()
