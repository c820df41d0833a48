"""The poll loop in a process of its own: killed at any moment, stopped, broken, in production."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handler.testing import fake_runtime
from tests.adapters.transfer.loopback import body, serving
from tests.drive_poll_loop import AS_BUFFER, PollLoopDriver, child, environment
from tests.orchestrator import FakeOrchestrator, Trouble, answers, drops_answer, hangs
from tests.poll_worker import MOMENTS

WORKER = str(Path(sys.executable).with_name("musetalk-worker"))


@pytest.fixture
def order(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job as the orchestrator gives it away."""
    names = ("musetalk_job_id", "video_url", "audio_url", "aspect_ratio", "resolution")
    return {name: job[name] for name in names}


@pytest.fixture
def orchestrator() -> Iterator[FakeOrchestrator]:
    with FakeOrchestrator().serving() as fake:
        yield fake


def spooled(place: Path) -> list[Path]:
    """Return the reports that lie on disk."""
    return list(place.glob("avatars/reports/*/*.json"))


# -- killed ----------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_at_any_moment_of_a_job_loses_none(
    tmp_path: Path, orchestrator: FakeOrchestrator, order: dict[str, Any]
) -> None:
    orchestrator.silence_seconds = 0.5
    name = orchestrator.submit(order)

    for moment in MOMENTS:
        fate = {"WORKER_ID": f"dies-at-{moment}", "MOMENT": moment, "FATE": "die"}
        with child(orchestrator, tmp_path, **fate) as worker:
            assert worker.exit_code() == -signal.SIGKILL
    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator):
        report = orchestrator.report(name)

    assert report["status"] == "succeeded"
    assert report["output_url"] == "memory://job-123.mp4"
    assert orchestrator.tickets[name].given == len(MOMENTS) + 1


@pytest.mark.parametrize(
    ("words", "trouble"),
    [({}, hangs), ({}, answers(500)), ({}, drops_answer), (AS_BUFFER, answers(502))],
    ids=["hangs", "500", "drops answer", "buffer 502"],
)
def test_a_report_survives_the_worker_that_could_not_get_rid_of_it(
    tmp_path: Path,
    orchestrator: FakeOrchestrator,
    order: dict[str, Any],
    words: dict[str, str],
    trouble: Trouble,
) -> None:
    queue, fields = ("buffer", {"buffer_job_id": "b-1"}) if words else ("main", {})
    place = "/status" if words else "/progress"
    name = orchestrator.submit(order | fields, queue)
    orchestrator.trouble[place] = trouble

    with child(orchestrator, tmp_path, **words) as worker:
        orchestrator.wait(lambda: spooled(tmp_path) or None)
        worker.kill()
    orchestrator.trouble.clear()
    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator, **words):
        report = orchestrator.report(name)

    assert report["status"] == "succeeded"
    assert report["output_url"]
    assert orchestrator.tickets[name].given == 1
    assert spooled(tmp_path) == []


# -- stopped ---------------------------------------------------------------------------------------


def test_a_worker_that_is_stopped_while_it_starts_is_gone_at_once(
    tmp_path: Path, orchestrator: FakeOrchestrator
) -> None:
    with child(orchestrator, tmp_path, MOMENT="start", FATE="stall") as worker:
        worker.await_moment("start")
        worker.stop()

        # No grace is waited for where there is no job.
        assert worker.exit_code(within_seconds=5) == 0


def test_a_worker_that_is_stopped_finishes_its_job_and_takes_no_other(
    tmp_path: Path, orchestrator: FakeOrchestrator, order: dict[str, Any]
) -> None:
    orchestrator.submit(order | {"musetalk_job_id": "first"})
    orchestrator.submit(order | {"musetalk_job_id": "second"})

    with child(orchestrator, tmp_path, MOMENT="inference", FATE="await") as worker:
        worker.await_moment("inference")
        worker.stop()
        worker.await_log("stopping")
        worker.go_on()

        assert worker.exit_code() == 0
    assert orchestrator.report("first")["status"] == "succeeded"
    assert orchestrator.tickets["second"].state == "queued"


def test_a_job_that_does_not_end_in_time_is_given_back(
    tmp_path: Path, orchestrator: FakeOrchestrator, order: dict[str, Any]
) -> None:
    name = orchestrator.submit(order)

    with child(
        orchestrator, tmp_path, MOMENT="inference", FATE="linger", DRAIN_SEC="0.2"
    ) as worker:
        worker.await_moment("inference")
        worker.stop()

        assert worker.exit_code() == 0
    failure = json.loads(orchestrator.report(name)["error"])
    assert failure["retryable"] is True
    assert failure["error_type"] == "processing_error"
    assert failure["stage"] == "inference"


def test_a_job_that_stands_still_is_left_to_the_end_of_its_lease(
    tmp_path: Path, orchestrator: FakeOrchestrator, order: dict[str, Any]
) -> None:
    name = orchestrator.submit(order)

    with child(orchestrator, tmp_path, MOMENT="inference", FATE="stall", DRAIN_SEC="0") as worker:
        worker.await_moment("inference")
        worker.stop()

        assert worker.exit_code() == 0
    assert orchestrator.tickets[name].report is None


def test_a_second_signal_ends_the_worker_at_once(
    tmp_path: Path, orchestrator: FakeOrchestrator, order: dict[str, Any]
) -> None:
    orchestrator.submit(order)

    with child(orchestrator, tmp_path, MOMENT="inference", FATE="stall", DRAIN_SEC="60") as worker:
        worker.await_moment("inference")
        worker.stop()
        worker.await_log("stopping")
        worker.stop()

        assert worker.exit_code() == 128 + signal.SIGTERM


def test_a_broken_worker_reports_its_job_and_asks_to_be_restarted(
    tmp_path: Path, orchestrator: FakeOrchestrator, order: dict[str, Any]
) -> None:
    name = orchestrator.submit(order)

    with child(orchestrator, tmp_path, MOMENT="inference", FATE="break") as worker:
        assert worker.exit_code() == 75
    assert json.loads(orchestrator.report(name)["error"])["error_code"] == "worker_broken"


# -- as it is deployed -----------------------------------------------------------------------------


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("words", [{}, AS_BUFFER], ids=["main", "buffer"])
def test_the_predecessors_variables_make_a_worker_that_films_and_answers_hc(
    tmp_path: Path,
    orchestrator: FakeOrchestrator,
    words: dict[str, str],
    face: Path,
    word: Path,
) -> None:
    port = free_port()
    local = {
        "MUSETALK_ENGINE": "preview",
        "ALLOW_HTTP": "true",
        "ALLOW_PRIVATE_HOSTS": "127.0.0.1",
        "PORT": f"{port}",
    }
    sources = (body(face.read_bytes()), body(word.read_bytes()))
    with serving(sources[0]) as video, serving(sources[1]) as audio:
        urls = {"video_url": f"{video.url}/face.mp4", "audio_url": f"{audio.url}/voice.wav"}
        fields = {"musetalk_job_id": "job-7", **urls, "aspect_ratio": None, "resolution": None}
        ours = {"buffer_job_id": "b-7"} if words else {}
        name = orchestrator.submit(fields | ours, "buffer" if words else "main")
        with child(orchestrator, tmp_path, WORKER, "local", **words, **local) as worker:
            report = orchestrator.report(name)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/hc") as answer:
                health = json.load(answer)
            worker.stop()
            code = worker.exit_code()

    assert report["status"] == "succeeded"
    assert report["output_url"] == (tmp_path / "out" / "job-7.mp4").as_uri()
    assert report["metrics"]["gpu_class"] == "RTX-local-buffer"
    assert (tmp_path / "out" / "job-7.mp4").stat().st_size > 10_000
    assert health == {"status": "ok"}
    assert code == 0


def test_a_port_that_another_worker_has_is_no_reason_not_to_work(
    tmp_path: Path, orchestrator: FakeOrchestrator, order: dict[str, Any]
) -> None:
    name = orchestrator.submit(order)

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with child(orchestrator, tmp_path, PORT=port) as worker:
            line = worker.await_log("no http")
            report = orchestrator.report(name)

    assert f"PORT={port}" in line["reason"]
    assert report["status"] == "succeeded"


def test_a_setting_that_cannot_work_is_named_and_exits_with_2(tmp_path: Path) -> None:
    env = environment(FakeOrchestrator(url="http://127.0.0.1:1"), tmp_path, INTERNAL_API_KEY="")

    done = subprocess.run(
        [WORKER, "local"],
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("INTERNAL_API_KEY")
