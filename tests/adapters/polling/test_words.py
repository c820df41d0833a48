"""The poll loop against an orchestrator on loopback: what is said, to whom, in what words."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest

from handler.errors import FaceNotFound
from handler.testing import FakeEngine, fake_runtime
from tests.drive_poll_loop import AS_BUFFER, Filming, Order, PollLoopDriver
from tests.orchestrator import (
    API_KEY,
    FakeOrchestrator,
    Trouble,
    answers,
    drops,
    garbage,
)


def test_a_main_worker_claims_a_job_and_reports_it_in_the_contracts_words(
    tmp_path: Path, order: Order
) -> None:
    with PollLoopDriver(fake_runtime(gpu_class="RTX-3090"), tmp_path) as worker:
        report = worker.orchestrator.report(worker.submit(order()))

    metrics = report.pop("metrics")
    assert report == {
        "status": "succeeded",
        "progress": 1.0,
        "phase": "completed",
        "worker_id": "worker-1",
        "error": None,
        "output_url": "memory://job-123.mp4",
    }
    assert metrics["gpu_class"] == "RTX-3090"
    assert {"stage_times", "total_time", "GENERATION_TIME_SEC"} <= set(metrics)
    (introduced,) = worker.orchestrator.said("register")
    assert introduced == {
        "worker_type": "main",
        "gpu_class": "RTX-3090",
        "provider": "local",
        "capacity": 1,
    }
    assert worker.orchestrator.said("main heartbeat")[0] == {
        "status": "idle",
        "current_job_id": None,
        "provider": "local",
        "gpu_class": "RTX-3090",
        "worker_type": "main",
        "system_info": {
            "contract": None,
            "version": "0",
            "git_commit": None,
            "image_digest": None,
            "image_id": None,
            "lock_sha256": None,
            "engine": "fake",
            "weights": None,
            "torch": None,
            "cuda": None,
            "face_tracker": None,
            "ffmpeg": None,
            "isolation": None,
            "cold_start_sec": None,
        },
    }


def test_a_buffer_worker_reports_by_the_buffers_own_id(tmp_path: Path, order: Order) -> None:
    engine = Filming()
    runtime = fake_runtime(engine=engine)
    with PollLoopDriver(runtime, tmp_path, **AS_BUFFER, BUFFER_CAPACITY="1") as worker:
        orchestrator = worker.orchestrator
        handle = worker.submit(order(buffer_job_id="b-7"))
        orchestrator.wait(lambda: orchestrator.said("progress"))
        engine.cut.set()
        report = orchestrator.report(handle)

    metrics = report.pop("metrics")
    url = "memory://job-123.mp4"
    assert report == {"status": "succeeded", "error": None, "output_url": url}
    assert set(metrics["stage_times"]) == {"download", "validation", "inference", "upload"}
    idle = {"status": "idle", "gpu_class": "fake", "capacity": 1, "error": None}
    assert orchestrator.said("buffer heartbeat")[0] == idle
    assert orchestrator.said("progress")[0]["worker_id"] == "buffer-1"
    assert {call.path for call in orchestrator.calls} == {
        "/internal/buffer/workers/buffer-1/heartbeat",
        "/internal/buffer/jobs/claim",
        "/internal/jobs/job-123/progress",
        "/internal/buffer/jobs/b-7/status",
    }


def test_every_request_carries_the_key_and_one_identity(tmp_path: Path, order: Order) -> None:
    names = {"SALAD_MACHINE_ID": "salad-9", "VAST_CONTAINERLABEL": "C.1"}

    with PollLoopDriver(fake_runtime(), tmp_path, **names) as worker:
        worker.wait(worker.submit(order()))

    calls = worker.orchestrator.calls
    assert {call.headers["x-internal-api-key"] for call in calls} == {API_KEY}
    named = {call.body["worker_id"] for call in calls if "worker_id" in call.body}
    named |= {call.path.split("/")[4] for call in calls if "/workers/" in call.path}
    assert named == {"salad-9"}


def test_with_both_names_one_loop_serves_both_queues_buffer_first(
    tmp_path: Path, order: Order
) -> None:
    orchestrator = FakeOrchestrator()
    names = {"WORKER_ID": "worker-1", "BUFFER_WORKER_ID": "buffer-1"}
    for number in range(2):
        orchestrator.submit(order(f"main-{number}"))
        orchestrator.submit(order(f"buffer-{number}", buffer_job_id=f"b-{number}"), "buffer")

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator, **names) as worker:
        orchestrator.report("main-1")

    done = [line["musetalk_job_id"] for line in worker.logged("job done")]
    assert done == ["buffer-0", "buffer-1", "main-0", "main-1"]
    assert orchestrator.said("progress")[-1]["worker_id"] == "buffer-1"
    assert any("buffer first" in line["message"] for line in worker.log)


def test_worker_mode_buffer_is_enough_to_be_a_buffer_worker(tmp_path: Path, order: Order) -> None:
    with PollLoopDriver(fake_runtime(), tmp_path, WORKER_MODE="buffer") as worker:
        worker.wait(worker.submit(order(buffer_job_id="b-7")))

    assert worker.orchestrator.said("buffer claim")[0] == {"worker_id": "worker-1"}
    assert not worker.orchestrator.said("main claim")


def test_the_buffers_orchestrator_goes_before_the_other(tmp_path: Path, order: Order) -> None:
    with FakeOrchestrator().serving() as buffer:
        urls = {"BUFFER_ORCHESTRATOR_BASE_URL": f"{buffer.url}/"}
        with PollLoopDriver(fake_runtime(), tmp_path, **AS_BUFFER, **urls) as worker:
            buffer.report(buffer.submit(order(buffer_job_id="b-7"), "buffer"))

    assert worker.orchestrator.calls == []


@pytest.mark.parametrize("words", [{}, AS_BUFFER], ids=["main", "buffer"])
def test_a_failure_is_reported_as_the_whole_failure_and_the_next_job_is_done(
    tmp_path: Path, order: Order, words: dict[str, str]
) -> None:
    engine = FakeEngine(fault=FaceNotFound("No face was found in any frame of the video."))
    fields = {"buffer_job_id": "b-1"} if words else {}

    with PollLoopDriver(fake_runtime(engine=engine), tmp_path, **words) as worker:
        handle = worker.submit(order("bad", **fields))
        report, failure = worker.orchestrator.report(handle), worker.wait(handle)
        engine.fault = None
        good = worker.wait(worker.submit(order("good", **fields and {"buffer_job_id": "b-2"})))

    assert (report["status"], report["output_url"], report["metrics"]) == ("failed", None, None)
    assert failure["error_type"] == "media_error"
    assert failure["error_code"] == "face_not_found"
    assert failure["stage"] == "preprocessing"
    assert failure["retryable"] is False
    assert failure["musetalk_job_id"] == "bad"
    assert good["status"] == "success"


def test_a_buffer_workers_heartbeat_tells_of_the_last_failure_until_a_job_succeeds(
    tmp_path: Path, order: Order
) -> None:
    engine = FakeEngine(fault=FaceNotFound("No face was found."))

    def told(error: str | None) -> Callable[[], bool]:
        return lambda: orchestrator.said("buffer heartbeat")[-1]["error"] == error

    with PollLoopDriver(fake_runtime(engine=engine), tmp_path, **AS_BUFFER) as worker:
        orchestrator = worker.orchestrator
        worker.wait(worker.submit(order("bad", buffer_job_id="b-1")))
        orchestrator.wait(told("No face was found."))
        engine.fault = None
        worker.wait(worker.submit(order("good", buffer_job_id="b-2")))
        orchestrator.wait(told(None))

    errors = [beat["error"] for beat in orchestrator.said("buffer heartbeat")]
    assert [error for error, _ in groupby(errors)] == [None, "No face was found.", None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"video_url": None},
        {"video_url": 7},
        {"audio_url": ["https://example.com/a.wav"]},
        {"aspect_ratio": "wide"},
        {"resolution": 720},
        {"musetalk_job_id": "../../etc/passwd"},
        {"musetalk_job_id": "a/b c?d=e"},
        {"musetalk_job_id": 17},
        {"user_id": 4},
        {"params": "none"},
        {"attempt": "the third"},
        {"metadata": {"x": "y" * 20_000}},
    ],
    ids=lambda wrong: ",".join(map(str, wrong.items()))[:40],
)
def test_a_job_with_wrong_fields_fails_by_name_and_the_next_is_done(
    tmp_path: Path, order: Order, wrong: dict[str, Any]
) -> None:
    with PollLoopDriver(fake_runtime(), tmp_path) as worker:
        failure = worker.wait(worker.submit(order() | wrong))
        good = worker.wait(worker.submit(order("good")))

    (field,) = wrong
    assert failure["error_type"] == "media_error"
    assert failure["error_code"] == "invalid_job"
    assert failure["stage"] == "validation"
    assert failure["details"]["field"] == field
    assert good["status"] == "success"


@pytest.mark.parametrize("words", [{}, AS_BUFFER], ids=["main", "buffer"])
def test_an_operator_reads_which_attempt_of_a_job_it_was_if_the_orchestrator_tells(
    tmp_path: Path, order: Order, words: dict[str, str]
) -> None:
    with PollLoopDriver(fake_runtime(), tmp_path, **words) as worker:
        ours = [{"buffer_job_id": name} for name in ("b-1", "b-2")] if words else [{}, {}]
        worker.wait(worker.submit(order("again", attempt=3, **ours[0])))
        worker.wait(worker.submit(order("silent", **ours[1])))
        worker.orchestrator.wait(lambda: len(worker.logged("job done")) == 2)

    told, silent = worker.logged("job done")
    assert told["attempt"] == 3
    assert "attempt" not in silent
    assert told.get("buffer_job_id") == ours[0].get("buffer_job_id")


def test_a_buffer_job_without_a_job_id_goes_by_the_buffers(tmp_path: Path, order: Order) -> None:
    fields = order(buffer_job_id=42)
    del fields["musetalk_job_id"]

    with PollLoopDriver(fake_runtime(), tmp_path, **AS_BUFFER) as worker:
        report = worker.orchestrator.report(worker.submit(fields))

    assert report["output_url"] == "memory://42.mp4"


def test_a_buffer_job_without_the_buffers_id_is_reported_where_its_progress_is(
    tmp_path: Path, order: Order
) -> None:
    orchestrator = FakeOrchestrator()
    orchestrator.submit(order(), "buffer")

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator, **AS_BUFFER):
        report = orchestrator.report("job-123")

    assert (report["status"], report["phase"]) == ("succeeded", "completed")


def bottomless(handler: Any, _: Any) -> None:
    """Answer with JSON that no reader gets to the ground of."""
    handler.write(200, b"[" * 100_000)


@pytest.mark.parametrize(
    "answer",
    [
        bottomless,
        answers(200, {"job": {"video_url": "https://example.com/video.mp4"}}),
        answers(200, {"job": {"musetalk_job_id": ["job-1"]}}),
        answers(200, {"job": "job-1"}),
        answers(200, {"job": []}),
        answers(200, {"jobs": []}),
        answers(200, ["job"]),
        answers(200, {"job": None, "error": "database_unavailable"}),
        garbage,
        drops,
    ],
)
def test_a_claim_that_brings_no_job_is_logged_and_asked_again(
    tmp_path: Path, order: Order, answer: Trouble
) -> None:
    orchestrator = FakeOrchestrator(trouble={"/claim": answer})

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator) as worker:
        orchestrator.wait(lambda: len(orchestrator.said("main claim")) >= 2)
        orchestrator.trouble.clear()
        done = worker.wait(worker.submit(order()))

    assert worker.logged("claim failed")
    assert done["status"] == "success"


def test_a_wrong_key_is_logged_as_what_it_is_and_never_written_down(tmp_path: Path) -> None:
    with PollLoopDriver(fake_runtime(), tmp_path, INTERNAL_API_KEY="wr0ng-key") as worker:
        worker.orchestrator.wait(lambda: worker.logged("claim failed"))

    assert worker.logged("claim failed")[0]["status_code"] == 401
    assert worker.logged("heartbeat failed")[0]["body"] == '{"detail": "wrong key ***"}'
    assert "wr0ng-key" not in json.dumps(worker.log)


def test_the_longer_claims_fail_the_less_often_they_are_made(tmp_path: Path) -> None:
    orchestrator = FakeOrchestrator(trouble={"/claim": answers(502)})

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator):
        orchestrator.wait(lambda: len(orchestrator.said("main claim")) >= 5)

    at = [call.at for call in orchestrator.calls if call.kind == "main claim"]
    waits = [later - earlier for earlier, later in pairwise(at)]
    # Half of what the back-off may be, for its jitter.
    for wait, least in zip(waits, (0.025, 0.05, 0.1, 0.2), strict=False):
        assert wait >= least


def test_an_empty_queue_is_asked_once_an_interval(tmp_path: Path) -> None:
    with PollLoopDriver(fake_runtime(), tmp_path, POLL_INTERVAL_SEC="0.2") as worker:
        orchestrator = worker.orchestrator
        orchestrator.wait(lambda: len(orchestrator.said("main claim")) >= 3)

    at = [call.at for call in orchestrator.calls if call.kind == "main claim"]
    assert all(later - earlier >= 0.2 for earlier, later in pairwise(at))
