"""A worker that polls an orchestrator and is spoken to over HTTP as well, on one engine."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import pytest

from adapters.config import Config, ConfigError
from adapters.health import Health
from adapters.http.access import open_listener, url_of
from adapters.http.app import Door
from adapters.local_worker import LocalWorker, main
from adapters.log import open_log
from adapters.poll_loop import PollWorker
from handler import Runtime
from handler.testing import fake_runtime
from tests.drive_http import WORKER, HttpDriver
from tests.drive_poll_loop import BRISK, Child, child, environment
from tests.orchestrator import PATIENCE_SECONDS, FakeOrchestrator, holds

POSTED = {
    "musetalk_job_id": "posted",
    "video_url": "https://example.com/video.mp4",
    "audio_url": "https://example.com/audio.wav",
}


@pytest.fixture
def orchestrator() -> Iterator[FakeOrchestrator]:
    with FakeOrchestrator().serving() as fake:
        yield fake


@pytest.fixture
def order(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job as the orchestrator gives it away."""
    names = ("musetalk_job_id", "video_url", "audio_url", "aspect_ratio", "resolution")
    return {name: job[name] for name in names}


def http(worker: Child) -> HttpDriver:
    """Wait until the worker does both, and return how it is spoken to."""
    url = worker.await_log("listening")["url"]
    worker.await_log("started")
    return HttpDriver(url)


def test_jobs_that_are_posted_and_jobs_that_are_claimed_are_both_done(
    tmp_path: Path, orchestrator: FakeOrchestrator, order: dict[str, Any]
) -> None:
    with child(orchestrator, tmp_path) as worker:
        door = http(worker)
        posted = door.generate(POSTED)
        report = orchestrator.report(orchestrator.submit(order))
        counted = door.ask("GET", "/metrics").body

    assert posted.body["output_url"] == "memory://posted.mp4"
    assert report["output_url"] == "memory://job-123.mp4"
    assert 'musetalk_jobs_total{end="success"} 2.0' in counted


def test_a_claimed_job_that_hangs_is_seen_to_run(
    tmp_path: Path, orchestrator: FakeOrchestrator, order: dict[str, Any]
) -> None:
    with child(orchestrator, tmp_path, MOMENT="inference", FATE="await") as worker:
        door = http(worker)
        handle = orchestrator.submit(order)
        worker.await_moment("inference")
        meanwhile = door.ask("GET", "/metrics").body
        worker.go_on()
        orchestrator.report(handle)

    assert "musetalk_jobs_running 1.0" in meanwhile


def test_a_gpu_that_fails_under_a_posted_job_ends_the_polling_too(
    tmp_path: Path, orchestrator: FakeOrchestrator, order: dict[str, Any]
) -> None:
    with child(orchestrator, tmp_path, MOMENT="inference", FATE="break") as worker:
        answer = http(worker).generate(POSTED)
        code = worker.exit_code()
        claimed_later = orchestrator.submit(order)

    assert (answer.status, answer.body["error_code"]) == (500, "worker_broken")
    assert answer.body["retryable"]
    assert code == 75
    assert orchestrator.tickets[claimed_later].given == 0


def test_a_worker_that_is_told_to_stop_finishes_the_job_that_was_posted(
    tmp_path: Path, orchestrator: FakeOrchestrator
) -> None:
    fate = {"MOMENT": "inference", "FATE": "await", "DRAIN_SEC": "20"}
    with child(orchestrator, tmp_path, **fate) as worker, ThreadPoolExecutor(1) as caller:
        door = http(worker)
        answer = caller.submit(door.generate, POSTED)
        worker.await_moment("inference")
        worker.stop()
        worker.await_log("stopping")
        worker.go_on()
        code = worker.exit_code()

    assert answer.result().status == 200
    assert code == 0


def test_a_job_that_is_posted_before_the_orchestrator_has_answered_is_in_hand(
    tmp_path: Path, orchestrator: FakeOrchestrator
) -> None:
    answer = threading.Event()
    orchestrator.trouble["/register"] = holds(answer)
    config = Config.from_env(environment(orchestrator, tmp_path))
    log, health = open_log(io.StringIO()), Health()
    door, loaded = Door(log, health), threading.Event()

    def load() -> Runtime:
        runtime = fake_runtime()
        door.queue.open(runtime)
        loaded.set()
        return runtime

    pace = replace(BRISK, heartbeat_patience_seconds=PATIENCE_SECONDS)
    poll = PollWorker(config, load, log, health, pace)
    with ThreadPoolExecutor(1) as thread, open_listener(config) as listener:
        worker = LocalWorker(poll, door, listener, config)
        before = worker.started
        running = thread.submit(worker.run)
        assert loaded.wait(PATIENCE_SECONDS)
        posted = HttpDriver(url_of(listener)).generate(POSTED)
        in_hand = worker.started
        worker.stop()
        answer.set()
        running.result()

    assert (before, posted.status, in_hand) == (False, 200, True)


def test_an_engine_that_fails_in_a_way_nobody_foresaw_is_a_reason_not_to_start(
    tmp_path: Path, orchestrator: FakeOrchestrator
) -> None:
    def load() -> Never:
        raise RuntimeError("This GPU has no memory left.")

    with pytest.raises(ConfigError, match="RuntimeError: This GPU has no memory left"):
        main(Config.from_env(environment(orchestrator, tmp_path)), load)


def test_an_engine_that_lacks_its_weights_ends_the_worker_with_2_and_the_reason(
    tmp_path: Path, orchestrator: FakeOrchestrator
) -> None:
    nowhere = {"MUSETALK_WEIGHTS_DIR": f"{tmp_path}/nowhere"}
    with child(orchestrator, tmp_path, str(WORKER), "local", **nowhere) as worker:
        _, complaint = worker.process.communicate()

        assert worker.exit_code() == 2
    assert "MUSETALK_WEIGHTS_DIR" in complaint
    assert "Traceback" not in complaint


def test_a_posted_job_that_takes_too_long_for_a_stop_is_answered_as_retryable(
    tmp_path: Path, orchestrator: FakeOrchestrator
) -> None:
    fate = {"MOMENT": "inference", "FATE": "linger", "DRAIN_SEC": "0.1"}
    with child(orchestrator, tmp_path, **fate) as worker, ThreadPoolExecutor(1) as caller:
        door = http(worker)
        answer = caller.submit(door.generate, POSTED)
        worker.await_moment("inference")
        worker.stop()
        code = worker.exit_code()

    assert answer.result().body["error_code"] == "worker_unavailable"
    assert answer.result().body["retryable"]
    assert code == 0
