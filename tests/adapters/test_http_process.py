"""The HTTP door's start and end, in a process of its own that is sent real signals."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Never

import pytest

from adapters.config import Config, ConfigError
from adapters.http_server import serve
from tests.adapters.transfer.loopback import Handler, body, serving
from tests.drive_http import Reply, WorkerProcess, worker_process

JOB = {
    "musetalk_job_id": "job-7",
    "video_url": "https://example.com/video.mp4",
    "audio_url": "https://example.com/audio.wav",
}


@contextmanager
def told_worker(engine: str = "obedient", drain_seconds: float = 20) -> Iterator[WorkerProcess]:
    """Start a worker whose engine does what it is told."""
    child = (sys.executable, "-m", "tests.http_worker", engine)
    with worker_process(*child, DRAIN_SEC=str(drain_seconds)) as worker:
        yield worker


@contextmanager
def working(worker: WorkerProcess) -> Iterator[Future[Reply]]:
    """Have a job asked for, and lend its answer once the job has got to the engine."""
    worker.tell("load")
    worker.await_log("ready")
    with ThreadPoolExecutor(1) as caller:
        job_id = worker.driver.submit(JOB)
        answer = caller.submit(worker.driver.generate, JOB)
        for _, state in worker.driver.events(job_id):
            if state["phase"] == "inferring":
                break
        yield answer


def test_probes_are_answered_while_the_engine_loads_and_jobs_when_it_has() -> None:
    with told_worker() as worker:
        early = worker.driver.ask("GET", "/hc")
        worker.tell("load")
        worker.await_log("ready")
        ready = worker.driver.ask("GET", "/hc")
        worker.tell("finish")
        done = worker.driver.generate(JOB)

    assert (early.status, early.body) == (503, {"status": "starting"})
    assert (ready.status, ready.body) == (200, {"status": "ok"})
    assert done.body["output_url"] == "memory://job-7.mp4"


def test_a_worker_that_is_told_to_stop_finishes_its_job_and_takes_no_other() -> None:
    with told_worker() as worker, working(worker) as answer:
        worker.process.send_signal(signal.SIGTERM)
        worker.await_log("stopping")
        probe = worker.driver.ask("GET", "/hc")
        other = worker.driver.generate(JOB | {"musetalk_job_id": "too-late"})
        worker.tell("finish")

        assert (answer.result().status, answer.result().body["status"]) == (200, "success")
        assert worker.exit_code() == 0
    assert (probe.status, probe.body) == (503, {"status": "unhealthy"})
    assert (other.status, other.body["retryable"]) == (503, True)


def test_a_job_that_takes_too_long_to_finish_is_left_to_another_worker() -> None:
    with told_worker(drain_seconds=0.1) as worker, working(worker) as answer:
        worker.process.send_signal(signal.SIGTERM)

        assert answer.result().body["error_code"] == "worker_unavailable"
        assert answer.result().body["retryable"]
        assert worker.exit_code() == 0


def test_a_job_that_hangs_keeps_no_worker_from_stopping_and_no_caller_waiting() -> None:
    with told_worker("hung", drain_seconds=0.1) as worker, working(worker) as answer:
        worker.process.send_signal(signal.SIGTERM)

        assert answer.result().body["error_code"] == "worker_unavailable"
        assert answer.result().body["retryable"]
        assert worker.await_log("job failed")["musetalk_job_id"] == "job-7"
        assert worker.exit_code() == 1


def test_whoever_says_stop_twice_does_not_wait() -> None:
    with told_worker("hung") as worker:
        worker.tell("load")
        worker.await_log("ready")
        worker.driver.submit(JOB)
        worker.process.send_signal(signal.SIGTERM)
        worker.await_log("stopping")
        worker.process.send_signal(signal.SIGTERM)

        # Its own exit: a signal's default is nothing to the first process of a container.
        assert worker.exit_code() == 128 + signal.SIGTERM


def test_a_worker_can_be_stopped_while_it_starts() -> None:
    with told_worker() as worker:
        worker.process.send_signal(signal.SIGTERM)

        assert worker.exit_code() == 0


def test_an_engine_that_lacks_its_weights_ends_the_worker_with_2_and_the_reason(
    tmp_path: Path,
) -> None:
    with worker_process(MUSETALK_WEIGHTS_DIR=str(tmp_path)) as worker:
        _, complaint = worker.process.communicate()

        assert worker.exit_code() == 2
    assert "unet.pth" in complaint
    assert "Traceback" not in complaint


def test_an_engine_that_fails_in_a_way_nobody_foresaw_is_a_reason_not_to_start() -> None:
    def load() -> Never:
        raise RuntimeError("This GPU has no memory left.")

    with pytest.raises(ConfigError, match="RuntimeError: This GPU has no memory left"):
        serve(Config.from_env({"PORT": "0"}), load)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "no-such-host.invalid"])
def test_a_worker_that_anybody_could_reach_does_not_start_without_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="WORKER_TOKEN"):
        serve(Config.from_env({"PORT": "0", "HOST": host}), lambda: pytest.fail("was loaded"))


def test_a_port_that_is_taken_is_a_reason_not_to_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])

        with pytest.raises(ConfigError, match=f"PORT={port}"):
            serve(Config.from_env({"PORT": port}), lambda: pytest.fail("was loaded"))


def test_a_face_and_a_voice_make_a_video_over_http(tmp_path: Path, face: Path, word: Path) -> None:
    media = {"/face.mp4": face.read_bytes(), "/word.wav": word.read_bytes()}

    def answer(handler: Handler) -> None:
        body(media[handler.path])(handler)

    settings = {
        "MUSETALK_ENGINE": "preview",
        "OUTPUT_DIR": str(tmp_path / "out"),
        "AVATAR_CACHE_DIR": str(tmp_path / "avatars"),
        "ALLOW_HTTP": "true",
        "ALLOW_PRIVATE_HOSTS": "127.0.0.1",
        "HOST": "0.0.0.0",
        "WORKER_TOKEN": "correct-horse",
        "WORKER_ID": "salad-1",
    }
    with serving(answer) as site, worker_process(token="correct-horse", **settings) as worker:
        worker.await_log("ready")
        urls = {"video_url": f"{site.url}/face.mp4", "audio_url": f"{site.url}/word.wav"}
        reply = worker.driver.generate(JOB | urls | {"resolution": "128p"})
        line = worker.await_log("job done")

    assert reply.status == 200, reply.body
    assert reply.body["output"]["height"] == 128
    assert (tmp_path / "out" / "job-7.mp4").stat().st_size == reply.body["output"]["bytes"]
    assert (line["worker_id"], line["musetalk_job_id"]) == ("salad-1", "job-7")
    assert "correct-horse" not in json.dumps(line)
