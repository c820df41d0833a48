"""The four doors of the worker, each as its platform's real client has it, in the same words.

Behind each is a real worker process with the preview engine, steered by its jobs' metadata.
"""

from __future__ import annotations

import itertools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from handler import Success, read_result
from tests.drive_http import worker_process
from tests.drive_modal import ModalDoor
from tests.drive_poll_loop import child, outcome
from tests.drive_runpod import RunpodDriver
from tests.orchestrator import FakeOrchestrator
from tests.steered_engine import PATIENCE_SECONDS

Found = TypeVar("Found")

STEERED_WORKER = (sys.executable, "-m", "tests.steered_worker")
STEERED_APP = Path(__file__).with_name("steered_modal_app.py")
REPOSITORY = STEERED_APP.parents[1]
#: What a worker needs to film what is served on loopback; where it keeps things is added.
ON_LOOPBACK = {
    "MUSETALK_ENGINE": "preview",
    "ALLOW_HTTP": "true",
    "ALLOW_PRIVATE_HOSTS": "127.0.0.1",
}


class Door(ABC):
    """One door, from its start to its end, as a context manager."""

    #: How many jobs its worker has in hand at once.
    at_once: ClassVar[int] = 1
    #: Whether callers get all of a success, or only what the orchestrator asks for.
    tells_all: ClassVar[bool] = True

    def __init__(self, home: Path) -> None:
        """Keep all files below ``home``, videos in ``home/out``."""
        self.home = home
        self.out = home / "out"
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *end: object) -> None:
        self._open.close()

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Have a job done; return its result, be it a success or a failure."""
        return self.wait(self.submit(job))

    @abstractmethod
    def start(self) -> None:
        """Start the worker; what is to be closed in the end goes to ``_open``."""

    @abstractmethod
    def submit(self, job: dict[str, Any]) -> str:
        """Hand a job over; return the ticket to ask for it by."""

    @abstractmethod
    def wait(self, ticket: str) -> dict[str, Any]:
        """Return what came of a job."""

    @abstractmethod
    def cancel(self, ticket: str) -> None:
        """Take a job back."""

    @abstractmethod
    def follow(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Have a job done and yield all that is told of it, in the order in which it comes."""

    @abstractmethod
    def assert_cancelled(self, ticket: str) -> None:
        """See that a job was taken back, as those see it who look there for it."""

    @abstractmethod
    def assert_out_of_service(self, ticket: str, next_job: dict[str, Any]) -> None:
        """See that the worker that broke at a job is given no other."""


class Http(Door):
    """HTTP: ``/generate`` for whoever waits, ``/jobs`` for whoever comes back."""

    at_once = 2

    def start(self) -> None:
        env = {"OUTPUT_DIR": f"{self.out}", "AVATAR_CACHE_DIR": f"{self.home / 'avatars'}"}
        process = worker_process(*STEERED_WORKER, "http", **ON_LOOPBACK, **env)
        worker = self._open.enter_context(process)
        worker.await_log("ready")
        self._driver = worker.driver

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        reply = self._driver.generate(job)
        result = read_result(reply.body)
        assert reply.status == (200 if isinstance(result, Success) else result.http_status)
        return dict(reply.body)

    def submit(self, job: dict[str, Any]) -> str:
        return self._driver.submit(job)

    def wait(self, ticket: str) -> dict[str, Any]:
        return self._driver.wait(ticket)

    def cancel(self, ticket: str) -> None:
        self._driver.cancel(ticket)

    def follow(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for _, told in self._driver.events(self.submit(job)):
            yield told

    def assert_cancelled(self, ticket: str) -> None:
        reply = self._driver.look(ticket)
        assert (reply.status, reply.body["error_type"]) == (499, "cancelled")

    def assert_out_of_service(self, ticket: str, next_job: dict[str, Any]) -> None:
        probe = self._driver.ask("GET", "/hc")
        refusal = self._driver.generate(next_job)
        assert (probe.status, probe.body) == (503, {"status": "unhealthy"})
        assert (refusal.status, refusal.body["retryable"]) == (503, True)


class Modal(Door):
    """Modal: the SDK's own calls, and its web app for what became of a call that was cancelled."""

    def start(self) -> None:
        # What steers the engine is not shipped.
        door = ModalDoor(self.home, STEERED_APP, "SteeredWorker", PYTHONPATH=f"{REPOSITORY}")
        self._driver = self._open.enter_context(door)

    def submit(self, job: dict[str, Any]) -> str:
        return self._driver.submit(job)

    def wait(self, ticket: str) -> dict[str, Any]:
        return self._driver.wait(ticket, PATIENCE_SECONDS)

    def cancel(self, ticket: str) -> None:
        self._driver.cancel(ticket)

    def follow(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return self._driver.events(job)

    def assert_cancelled(self, ticket: str) -> None:
        assert self.wait(ticket)["error_type"] == "cancelled"

    def assert_out_of_service(self, ticket: str, next_job: dict[str, Any]) -> None:
        result, broken = self.do(next_job), self.wait(ticket)
        assert result["status"] == "success", result
        assert result["worker"]["worker_id"] != broken["worker"]["worker_id"]


class Recorded(Door):
    """A door to which the worker reports, and whose platform takes that down."""

    @abstractmethod
    def told(self, ticket: str) -> list[dict[str, Any]]:
        """Return all that was told of a job so far."""

    @abstractmethod
    def await_any(self, look: Callable[[], list[Found]]) -> list[Found]:
        """Wait until a look finds something."""

    def follow(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        ticket = self.submit(job)
        for known in itertools.count():
            word, *_ = self.await_any(partial(self._told_since, known, ticket))
            yield word
            if word["status"] != "running":
                break
        # Whatever else might come would come before the end of another job.
        self.do({})
        yield from self._told_since(known + 1, ticket)

    def _told_since(self, known: int, ticket: str) -> list[dict[str, Any]]:
        return self.told(ticket)[known:]


class Runpod(Recorded):
    """RunPod: its serverless SDK, and a backend that hands it jobs."""

    at_once = 2

    def start(self) -> None:
        driver = RunpodDriver(self.home, (*STEERED_WORKER, "runpod"))
        self._driver = self._open.enter_context(driver)

    def submit(self, job: dict[str, Any]) -> str:
        return self._driver.submit(job)

    def wait(self, ticket: str) -> dict[str, Any]:
        return self._driver.wait(ticket, PATIENCE_SECONDS)

    def cancel(self, ticket: str) -> None:
        self._driver.cancel(ticket)

    def told(self, ticket: str) -> list[dict[str, Any]]:
        posts = self._driver.backend.posts(ticket)
        return [self.wait(ticket) if post.final else post.body["output"] for post in posts]

    def await_any(self, look: Callable[[], list[Found]]) -> list[Found]:
        return self._driver.backend.wait_for(look, PATIENCE_SECONDS, "news")

    def assert_cancelled(self, ticket: str) -> None:
        assert "cancelled" in self._driver.log_line(ticket, "job failed")
        # RunPod itself has told the caller.
        assert not any(post.final for post in self._driver.backend.posts(ticket))

    def assert_out_of_service(self, ticket: str, next_job: dict[str, Any]) -> None:
        assert self._driver.backend.final(ticket, 0).body["stopPod"] is True
        assert self._driver.exit_code() == 75


class PollLoop(Recorded):
    """The poll loop: an orchestrator that gives jobs away and takes reports."""

    tells_all = False

    def start(self) -> None:
        self._orchestrator = self._open.enter_context(FakeOrchestrator().serving())
        self._names = (f"job-{number}" for number in itertools.count(1))
        process = child(self._orchestrator, self.home, *STEERED_WORKER, "poll loop", **ON_LOOPBACK)
        self._worker = self._open.enter_context(process)

    def submit(self, job: dict[str, Any]) -> str:
        return self._orchestrator.submit({"musetalk_job_id": next(self._names), **job})

    def wait(self, ticket: str) -> dict[str, Any]:
        return outcome(self._orchestrator, ticket)

    def cancel(self, ticket: str) -> None:
        self._orchestrator.take_away(ticket)

    def told(self, ticket: str) -> list[dict[str, Any]]:
        calls = self._orchestrator.calls
        return [call.body for call in calls if call.path == f"/internal/jobs/{ticket}/progress"]

    def await_any(self, look: Callable[[], list[Found]]) -> list[Found]:
        return list(self._orchestrator.wait(look))

    def assert_cancelled(self, ticket: str) -> None:
        line = self._worker.await_log("job is not ours any more")
        assert line["musetalk_job_id"] == ticket
        assert self._orchestrator.tickets[ticket].report is None

    def assert_out_of_service(self, ticket: str, next_job: dict[str, Any]) -> None:
        left = self.submit(next_job)
        assert self._worker.exit_code() == 75
        assert self._orchestrator.tickets[left].state == "queued"


DOORS: tuple[type[Door], ...] = (Http, Runpod, Modal, PollLoop)
