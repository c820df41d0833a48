"""What went wrong in the predecessor's production, and must not again; a test for each lesson."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from handler import Job
from handler.ports import Clip, Scene, Stored
from handler.progress import Tick
from handler.testing import FakeAvatar, FakeClock, FakeEngine, fake_runtime
from tests.drive_poll_loop import AS_BUFFER, BRISK, Order, PollLoopDriver, child
from tests.orchestrator import (
    PATIENCE_SECONDS,
    FakeOrchestrator,
    Trouble,
    answers,
    drops,
    garbage,
    hangs,
)

BUFFER_WORDS = pytest.mark.parametrize("words", [{}, AS_BUFFER], ids=["main", "buffer"])


class Stalling(FakeEngine):
    """Stands still in the middle of a job, as a driver does, until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.released = threading.Event()

    def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        self.entered.set()
        self.released.wait(PATIENCE_SECONDS)
        return super().animate(avatar, scene, target, tick)


@BUFFER_WORDS
def test_lesson_1_a_heartbeat_that_is_not_taken_is_logged_with_status_and_body(
    tmp_path: Path, words: dict[str, str]
) -> None:
    trouble = {"/heartbeat": answers(503, {"detail": "database is away"})}
    orchestrator = FakeOrchestrator(trouble=trouble)

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator, **words) as worker:
        orchestrator.wait(lambda: len(worker.logged("heartbeat failed")) >= 2)

    failed = worker.logged("heartbeat failed")[0]
    assert failed["level"] == "warning"
    assert failed["status_code"] == 503
    assert failed["body"] == '{"detail": "database is away"}'
    assert failed["path"].endswith("/heartbeat")


@BUFFER_WORDS
def test_lesson_2_an_engine_that_stands_still_delays_no_heartbeat(
    tmp_path: Path, order: Order, words: dict[str, str]
) -> None:
    kind = "buffer heartbeat" if words else "main heartbeat"
    # As in production, three heartbeats fit into the time after which a worker counts as dead.
    orchestrator, pace = (
        FakeOrchestrator(silence_seconds=0.9),
        replace(BRISK, heartbeat_seconds=0.3),
    )
    engine = Stalling()

    runtime = fake_runtime(engine=engine)
    with PollLoopDriver(runtime, tmp_path, orchestrator=orchestrator, pace=pace, **words) as worker:
        handle = worker.submit(order(**({"buffer_job_id": "b-1"} if words else {})))
        engine.entered.wait(PATIENCE_SECONDS)
        before = len(orchestrator.said(kind))
        orchestrator.wait(lambda: len(orchestrator.said(kind)) >= before + 5)
        said = orchestrator.said(kind)[before:]
        engine.released.set()
        worker.wait(handle)

    at = [call.at for call in orchestrator.calls if call.kind == kind]
    assert max(later - earlier for earlier, later in pairwise(at)) < 0.9
    assert {body["status"] for body in said[1:]} == {"busy"}
    assert {body.get("current_job_id", "job-123") for body in said[1:]} == {"job-123"}
    assert (orchestrator.expired, orchestrator.tickets[handle].given) == (0, 1)


@pytest.mark.parametrize("trouble", [drops, garbage, hangs, answers(500)])
def test_lesson_3_a_connection_that_broke_is_not_the_end_of_heartbeats(
    tmp_path: Path, trouble: Trouble
) -> None:
    orchestrator = FakeOrchestrator(trouble={"/heartbeat": trouble})
    pace = replace(BRISK, heartbeat_patience_seconds=0.1)

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator, pace=pace) as worker:
        orchestrator.wait(lambda: len(worker.logged("heartbeat failed")) >= 2)
        alive = bool(orchestrator.heard)
        orchestrator.trouble.clear()
        orchestrator.wait(lambda: orchestrator.heard.get("worker-1"))

    # A claim is a sign of life, too: it is the heartbeats that this is about.
    assert alive is bool(orchestrator.said("main claim"))


@BUFFER_WORDS
def test_lesson_4_success_is_never_reported_without_its_url_and_its_metrics(
    tmp_path: Path, order: Order, words: dict[str, str]
) -> None:
    with PollLoopDriver(fake_runtime(), tmp_path, **words) as worker:
        handle = worker.submit(order(**({"buffer_job_id": "b-1"} if words else {})))
        worker.wait(handle)

    succeeded = [
        call.body for call in worker.orchestrator.calls if call.body.get("status") == "succeeded"
    ]
    assert succeeded
    for body in succeeded:
        assert body["output_url"] == "memory://job-123.mp4"
        assert body["metrics"]["total_time"] == 2.0


@BUFFER_WORDS
def test_lesson_5_every_job_that_was_claimed_is_reported_once(
    tmp_path: Path, order: Order, words: dict[str, str]
) -> None:
    kind, orchestrator = ("buffer status" if words else "progress"), FakeOrchestrator()
    names = [f"job-{number}" for number in range(5)]
    for number, name in enumerate(names):
        wrong = {"resolution": "huge"} if number % 2 else {}
        ours = {"buffer_job_id": f"b-{name}"} if words else {}
        orchestrator.submit(order(name, **wrong, **ours), "buffer" if words else "main")

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator, **words):
        reports = [orchestrator.report(name)["status"] for name in orchestrator.tickets]

    final = [body for body in orchestrator.said(kind) if body["status"] != "running"]
    assert reports == ["succeeded", "failed", "succeeded", "failed", "succeeded"]
    assert len(final) == len(names)
    assert {ticket.given for ticket in orchestrator.tickets.values()} == {1}


def test_lesson_6_a_finished_job_is_called_succeeded_and_not_done_again(
    tmp_path: Path, order: Order
) -> None:
    orchestrator = FakeOrchestrator(silence_seconds=0.3)

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator) as worker:
        handle = worker.submit(order())
        result = worker.wait(handle)
        claims = len(orchestrator.said("main claim"))
        orchestrator.wait(lambda: len(orchestrator.said("main claim")) >= claims + 10)

    assert result["status"] == "success"
    assert {body["status"] for body in orchestrator.said("progress")} == {"running", "succeeded"}
    assert orchestrator.tickets[handle].given == 1


def test_lesson_8_an_upload_that_never_ends_costs_its_job_and_not_the_worker(
    tmp_path: Path, order: Order
) -> None:
    clock = FakeClock()

    def store(path: Path, job: Job, tick: Tick) -> Stored:
        while job.musetalk_job_id == "stuck":
            clock.advance(1)
            tick(0.5)
        return Stored("memory://next.mp4")

    runtime = fake_runtime(store=store, clock=clock, job_timeout_seconds=300)
    with PollLoopDriver(runtime, tmp_path) as worker:
        failure = worker.wait(worker.submit(order("stuck")))
        done = worker.wait(worker.submit(order("next")))

    assert failure["error_code"] == "deadline_exceeded"
    assert (failure["stage"], failure["retryable"]) == ("upload", True)
    assert done["output_url"] == "memory://next.mp4"


@pytest.mark.parametrize("status", [404, 502])
def test_lesson_12_an_orchestrator_that_is_being_deployed_is_waited_for(
    tmp_path: Path, order: Order, status: int
) -> None:
    orchestrator = FakeOrchestrator(trouble={"/internal/": answers(status)})

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator) as worker:
        handle = worker.submit(order())
        orchestrator.wait(lambda: len(orchestrator.said("main claim")) >= 3)
        orchestrator.trouble.clear()
        done = worker.wait(handle)

    assert done["status"] == "success"
    assert worker.logged("claim failed")[0]["status_code"] == status


def test_lesson_12_an_orchestrator_that_knows_no_registration_does_without(
    tmp_path: Path, order: Order
) -> None:
    orchestrator = FakeOrchestrator(knows_registration=False)

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator) as worker:
        worker.wait(worker.submit(order()))
        orchestrator.wait(lambda: len(orchestrator.said("main heartbeat")) >= 3)

    assert len(orchestrator.said("register")) == 1


def test_lesson_12_a_registration_that_met_a_deployment_is_made_up_for(tmp_path: Path) -> None:
    orchestrator = FakeOrchestrator(trouble={"/register": answers(502)})

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator):
        orchestrator.wait(lambda: len(orchestrator.said("register")) >= 2)
        orchestrator.trouble.clear()
        tried = len(orchestrator.said("register"))
        beats = len(orchestrator.said("main heartbeat"))
        orchestrator.wait(lambda: len(orchestrator.said("main heartbeat")) >= beats + 4)

    assert len(orchestrator.said("register")) in (tried + 1, tried + 2)


def test_lesson_23_docker_stop_ends_the_worker_and_the_gpu_is_free(tmp_path: Path) -> None:
    orchestrator = FakeOrchestrator()

    with orchestrator.serving(), child(orchestrator, tmp_path) as worker:
        orchestrator.wait(lambda: orchestrator.said("main claim"))
        worker.stop()

        assert worker.exit_code(within_seconds=5) == 0
