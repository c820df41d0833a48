"""The poll loop against an orchestrator on loopback: what is said, to whom, in what words."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from adapters.config import Config, ConfigError
from adapters.health import Health, HealthStatus
from adapters.log import open_log
from adapters.poll_loop import Pace, PollWorker
from adapters.polling.lease import Lease
from adapters.polling.queues import Claimed, Identity, MainQueue
from handler import Job, Runtime, WorkerBroken
from handler.errors import FaceNotFound
from handler.ports import Clip, Scene, Stored
from handler.progress import Phase, Progress, Tick
from handler.testing import FakeAvatar, FakeEngine, MemoryStore, fake_runtime
from tests.drive_poll_loop import AS_BUFFER, BRISK, PollLoopDriver, environment
from tests.orchestrator import (
    API_KEY,
    PATIENCE_SECONDS,
    FakeOrchestrator,
    Trouble,
    answers,
    drops,
    drops_answer,
    garbage,
    holds,
)

Order = Callable[..., dict[str, Any]]

NAMES = ("video_url", "audio_url", "aspect_ratio", "resolution")


@pytest.fixture
def order(job: dict[str, Any]) -> Order:
    """Return what makes jobs as the orchestrator gives them away."""

    def make(name: str = "job-123", **fields: Any) -> dict[str, Any]:
        return {"musetalk_job_id": name, **{field: job[field] for field in NAMES}, **fields}

    return make


class Filming(FakeEngine):
    """A fake engine that goes on until it is told to stop, or its job is ended."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = threading.Event()

    def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        while not self.cut.wait(0.001):
            tick(0.5)
        return super().animate(avatar, scene, target, tick)


# -- jobs and their words --------------------------------------------------------------------------


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
            "version": "0",
            "engine": "fake",
            "weights": None,
            "git_commit": None,
            "image_digest": None,
            "cold_start_sec": None,
        },
    }


def test_a_buffer_worker_reports_by_the_buffers_own_id(tmp_path: Path, order: Order) -> None:
    with PollLoopDriver(fake_runtime(), tmp_path, **AS_BUFFER, BUFFER_CAPACITY="1") as worker:
        report = worker.orchestrator.report(worker.submit(order(buffer_job_id="b-7")))

    orchestrator = worker.orchestrator
    metrics = report.pop("metrics")
    url = "memory://job-123.mp4"
    assert report == {"status": "succeeded", "error": None, "output_url": url}
    assert metrics["total_time"] > 0
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


@pytest.mark.parametrize(
    "answer",
    [
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


# -- progress --------------------------------------------------------------------------------------


def test_progress_is_told_at_least_every_five_percent_and_never_after_the_end(
    tmp_path: Path, order: Order
) -> None:
    orchestrator = FakeOrchestrator()

    class Steady(FakeEngine):
        """Goes on only once the orchestrator knows how far it is, give or take 5 %."""

        def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
            for step in range(101):
                tick(step / 100)
                # Preparing and the downloads were a third; the rest up to 94 % is this.
                so_far = 0.317 + step / 100 * 0.623
                orchestrator.wait(lambda so_far=so_far: _told(orchestrator) >= so_far - 0.05)
            return super().animate(avatar, scene, target, tick)

    runtime = fake_runtime(engine=Steady())
    with PollLoopDriver(runtime, tmp_path, orchestrator=orchestrator) as worker:
        worker.wait(worker.submit(order()))
        worker.wait(worker.submit(order("next")))

    said = [call.body for call in orchestrator.calls if call.path.endswith("job-123/progress")]
    fractions = [body["progress"] for body in said]
    assert [body["status"] for body in said] == ["running"] * (len(said) - 1) + ["succeeded"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0 > fractions[-2]
    assert {body["phase"] for body in said} >= {"downloading", "inferring", "completed"}
    assert all(body["metrics"] is body["error"] is None for body in said[:-1])


def test_progress_in_small_steps_is_news_at_every_percent_and_not_at_every_step(
    order: Order,
) -> None:
    identity = Identity(
        worker_id="w", worker_type="main", provider="local", gpu_class="fake", capacity=1
    )
    lease = Lease(MainQueue(identity, 5.0), Claimed(order(), "job-123"), wake=lambda: None)
    told = []

    for step in range(1000):
        lease(Progress(Phase.INFERRING, step / 1000))
        if lease.has_news:
            message = lease.news()
            assert message
            told.append(message.body["progress"])

    assert len(told) == 100
    assert max(later - earlier for earlier, later in pairwise(told)) < 0.02


def _told(orchestrator: FakeOrchestrator) -> float:
    return max((body["progress"] for body in orchestrator.said("progress")), default=0.0)


def test_progress_is_told_no_more_often_than_agreed(tmp_path: Path, order: Order) -> None:
    orchestrator, pace = FakeOrchestrator(), replace(BRISK, progress_seconds=0.1)

    class Busy(FakeEngine):
        """Ticks without end, until progress was told a few times."""

        def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
            step = 0
            while len(orchestrator.said("progress")) < 4:
                step += 1
                tick(1 - 0.999**step)
            return super().animate(avatar, scene, target, tick)

    runtime = fake_runtime(engine=Busy())
    with PollLoopDriver(runtime, tmp_path, orchestrator=orchestrator, pace=pace) as worker:
        worker.wait(worker.submit(order()))

    running = [call for call in orchestrator.calls if call.body.get("status") == "running"]
    # Timestamps are the receiver's: a little of the way there may be saved.
    assert all(later.at - earlier.at > 0.07 for earlier, later in pairwise(running))


def test_an_orchestrator_that_does_not_answer_holds_up_no_job(tmp_path: Path, order: Order) -> None:
    answer, stored = threading.Event(), threading.Event()
    orchestrator = FakeOrchestrator(trouble={"/progress": holds(answer)})

    def store(path: Path, job: Job, tick: Tick) -> Stored:
        stored.set()
        return Stored("memory://stored.mp4")

    runtime = fake_runtime(store=store, engine=FakeEngine(frames=10_000))
    with PollLoopDriver(runtime, tmp_path, orchestrator=orchestrator) as worker:
        handle = worker.submit(order())
        finished = stored.wait(PATIENCE_SECONDS)
        answer.set()
        worker.wait(handle)

    assert finished


@pytest.mark.parametrize("status", [404, 409, 410])
def test_a_job_that_is_not_ours_any_more_is_left_where_it_is(
    tmp_path: Path, order: Order, status: int
) -> None:
    engine, store = Filming(), MemoryStore()
    orchestrator = FakeOrchestrator(trouble={"/jobs/lost/": answers(status)})

    runtime = fake_runtime(engine=engine, store=store)
    with PollLoopDriver(runtime, tmp_path, orchestrator=orchestrator) as worker:
        worker.submit(order("lost"))
        orchestrator.wait(lambda: worker.logged("job is not ours any more"))
        engine.cut.set()
        worker.wait(worker.submit(order("next")))

    assert set(store.videos) == {"next"}
    said = [call.body["status"] for call in orchestrator.calls if "/jobs/lost/" in call.path]
    assert said == ["running"]


def test_a_job_that_was_given_to_another_worker_ends_though_its_engine_stood_still(
    tmp_path: Path, order: Order
) -> None:
    engine, store = Filming(), MemoryStore()

    with PollLoopDriver(fake_runtime(engine=engine, store=store), tmp_path) as worker:
        handle = worker.submit(order("lost"))
        worker.orchestrator.wait(lambda: _told(worker.orchestrator) > 0.3)
        worker.cancel(handle)
        worker.orchestrator.wait(lambda: worker.logged("job is not ours any more"))
        engine.cut.set()
        worker.wait(worker.submit(order("next")))

    assert set(store.videos) == {"next"}
    assert worker.orchestrator.tickets["lost"].report is None


# -- final reports ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [*(answers(status) for status in (401, 403, 404, 429, 500, 502)), garbage, drops],
    ids=["401", "403", "404", "429", "500", "502", "garbage", "drops"],
)
@pytest.mark.parametrize("words", [{}, AS_BUFFER], ids=["main", "buffer"])
def test_a_final_report_is_sent_until_it_is_taken(
    tmp_path: Path, order: Order, trouble: Trouble, words: dict[str, str]
) -> None:
    orchestrator, filming = FakeOrchestrator(), Filming()
    place, fields = ("/status", {"buffer_job_id": "b-1"}) if words else ("/progress", {})
    kind = "buffer status" if words else "progress"

    runtime = fake_runtime(engine=filming)
    with PollLoopDriver(runtime, tmp_path, orchestrator=orchestrator, **words) as worker:
        handle = worker.submit(order(**fields))
        orchestrator.wait(lambda: orchestrator.said("progress"))
        orchestrator.trouble[place] = trouble
        filming.cut.set()
        orchestrator.wait(lambda: len(_final(orchestrator, kind)) >= 3)
        orchestrator.trouble.clear()
        worker.wait(handle)

    assert len({json.dumps(body) for body in _final(orchestrator, kind)}) == 1
    assert worker.logged("report not taken")
    assert spooled(tmp_path) == []


def _final(orchestrator: FakeOrchestrator, kind: str) -> list[dict[str, Any]]:
    return [body for body in orchestrator.said(kind) if body["status"] != "running"]


def spooled(place: Path, name: str = "*.json") -> list[dict[str, Any]]:
    """Return the reports that lie on disk."""
    return [json.loads(path.read_text()) for path in place.glob(f"avatars/reports/*/{name}")]


def test_a_report_whose_receipt_got_lost_counts_once(tmp_path: Path, order: Order) -> None:
    orchestrator, filming = FakeOrchestrator(), Filming()

    runtime = fake_runtime(engine=filming)
    with PollLoopDriver(runtime, tmp_path, orchestrator=orchestrator) as worker:
        handle = worker.submit(order())
        orchestrator.wait(lambda: orchestrator.said("progress"))
        orchestrator.trouble["/progress"] = drops_answer
        filming.cut.set()
        orchestrator.report(handle)
        orchestrator.trouble.clear()
        worker.wait(worker.submit(order("next")))

    assert orchestrator.tickets[handle].given == 1
    assert spooled(tmp_path) == []


@pytest.mark.parametrize("status", [400, 409, 410, 413, 422])
def test_a_report_that_can_never_be_taken_is_put_aside_and_holds_up_nothing(
    tmp_path: Path, order: Order, status: int
) -> None:
    trouble = {"/buffer/jobs/b-1/": answers(status, {"detail": "never"})}
    orchestrator = FakeOrchestrator(trouble=trouble)

    worker = PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator, **AS_BUFFER)
    with worker:
        worker.submit(order("refused", buffer_job_id="b-1"))
        worker.wait(worker.submit(order("next", buffer_job_id="b-2")))

    (refused,) = worker.logged("report refused")
    assert (refused["status_code"], refused["body"]) == (status, '{"detail": "never"}')
    (letter,) = spooled(tmp_path, "refused/*.json")
    assert letter["body"]["output_url"] == "memory://refused.mp4"
    assert spooled(tmp_path) == []


@pytest.mark.parametrize("trouble", [drops, answers(500)], ids=["drops", "500"])
def test_a_report_that_is_never_taken_holds_up_none_of_the_others(
    tmp_path: Path, order: Order, trouble: Trouble
) -> None:
    orchestrator = FakeOrchestrator(trouble={"/buffer/jobs/b-1/": trouble})

    worker = PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator, **AS_BUFFER)
    with worker:
        worker.submit(order("stuck", buffer_job_id="b-1"))
        orchestrator.wait(lambda: worker.logged("report not taken"))
        handles = [worker.submit(order(f"{n}", buffer_job_id=f"b-{n}")) for n in (2, 3)]
        done = [worker.wait(handle)["status"] for handle in handles]

    assert done == ["success", "success"]
    assert [letter["path"] for letter in spooled(tmp_path)] == ["/internal/buffer/jobs/b-1/status"]


def test_a_report_that_nobody_knows_the_job_of_is_put_aside_after_a_while(
    tmp_path: Path, order: Order
) -> None:
    orchestrator = FakeOrchestrator(trouble={"/buffer/jobs/b-1/": answers(404)})

    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator, **AS_BUFFER) as worker:
        worker.submit(order("unknown", buffer_job_id="b-1"))
        orchestrator.wait(lambda: worker.logged("report refused"))

    assert len(orchestrator.said("buffer status")) > 1
    assert len(spooled(tmp_path, "refused/*.json")) == 1


def test_reports_of_an_earlier_worker_are_sent_before_the_engine_is_loaded(
    tmp_path: Path, order: Order
) -> None:
    orchestrator, loaded = FakeOrchestrator(), threading.Event()
    orchestrator.submit(order())
    orchestrator.trouble["/progress"] = answers(503)
    with PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator):
        orchestrator.wait(lambda: _final(orchestrator, "progress"))

    with orchestrator.serving():
        orchestrator.trouble.clear()
        config = Config.from_env(environment(orchestrator, tmp_path))

        def load() -> Runtime:
            loaded.wait(PATIENCE_SECONDS)
            return fake_runtime()

        health = Health()
        worker = PollWorker(config, load, open_log(io.StringIO()), health, BRISK)
        thread = threading.Thread(target=worker.run)
        thread.start()
        report = orchestrator.report("job-123")
        standing = health.status
        worker.stop()
        loaded.set()
        thread.join()

    assert report["output_url"] == "memory://job-123.mp4"
    assert standing is HealthStatus.STARTING
    assert orchestrator.tickets["job-123"].given == 1


def test_a_report_that_the_disk_does_not_take_is_sent_all_the_same(
    tmp_path: Path, order: Order
) -> None:
    filming = Filming()

    with PollLoopDriver(fake_runtime(engine=filming), tmp_path) as worker:
        handle = worker.submit(order())
        worker.orchestrator.wait(lambda: worker.orchestrator.said("progress"))
        shutil.rmtree(tmp_path / "avatars")
        filming.cut.set()
        done = worker.wait(handle)

    assert done["status"] == "success"
    assert worker.logged("report is kept in memory only")


# -- the worker's own end --------------------------------------------------------------------------


def test_a_broken_worker_reports_its_job_and_takes_no_other(tmp_path: Path, order: Order) -> None:
    engine = FakeEngine(fault=WorkerBroken("the GPU fell off the bus"))
    orchestrator = FakeOrchestrator()
    orchestrator.submit(order("first"))
    orchestrator.submit(order("second"))

    with PollLoopDriver(fake_runtime(engine=engine), tmp_path, orchestrator=orchestrator) as worker:
        failure = worker.wait("first")
        worker.join()

    assert failure["error_code"] == "worker_broken"
    assert failure["retryable"] is True
    assert worker.broken
    assert worker.health.status is HealthStatus.UNHEALTHY
    assert orchestrator.tickets["second"].state == "queued"


def test_a_job_that_is_given_back_may_be_tried_again(tmp_path: Path, order: Order) -> None:
    store = MemoryStore()

    with PollLoopDriver(fake_runtime(engine=Filming(), store=store), tmp_path) as worker:
        handle = worker.submit(order())
        worker.orchestrator.wait(lambda: worker.orchestrator.said("progress"))
        worker.worker.stop()
        worker.worker.give_back()
        failure = worker.wait(handle)
        worker.join()

    assert failure["error_type"] == "processing_error"
    assert failure["retryable"] is True
    assert "stopped" in failure["error_message"]
    assert store.videos == {}


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"ORCHESTRATOR_BASE_URL": ""}, "ORCHESTRATOR_BASE_URL"),
        ({"ORCHESTRATOR_BASE_URL": "orch.example"}, "ORCHESTRATOR_BASE_URL"),
        ({"ORCHESTRATOR_BASE_URL": "https://user:pw@orch.example"}, "ORCHESTRATOR_BASE_URL"),
        ({"BUFFER_ORCHESTRATOR_BASE_URL": "ftp://x"}, "BUFFER_ORCHESTRATOR_BASE_URL"),
        ({"INTERNAL_API_KEY": ""}, "INTERNAL_API_KEY"),
        ({"INTERNAL_API_KEY": "sch\u00fcssel"}, "INTERNAL_API_KEY"),
        ({"INTERNAL_API_KEY": "two\r\nlines"}, "INTERNAL_API_KEY"),
        ({"POLL_INTERVAL_SEC": "0"}, "POLL_INTERVAL_SEC"),
        ({"BUFFER_POLL_INTERVAL_SEC": "soon"}, "BUFFER_POLL_INTERVAL_SEC"),
        ({"BUFFER_CAPACITY": "0"}, "BUFFER_CAPACITY"),
        ({"DRAIN_SEC": "-1"}, "DRAIN_SEC"),
        ({"OUTPUT_DIR": ""}, "B2_KEY_ID"),
        ({"SPOOL_DIR": "/dev/null/spool"}, "SPOOL_DIR"),
    ],
)
def test_a_setting_that_cannot_work_stops_the_start_and_is_named(
    tmp_path: Path, wrong: dict[str, str], name: str
) -> None:
    orchestrator = FakeOrchestrator(url="http://127.0.0.1:1")

    with pytest.raises(ConfigError, match=name) as caught:
        PollLoopDriver(fake_runtime(), tmp_path, orchestrator=orchestrator, **wrong).__enter__()

    assert "lines" not in str(caught.value)
    assert "pw@" not in str(caught.value)


def test_the_start_is_logged_with_all_that_one_asks_first_and_no_secret(
    tmp_path: Path, order: Order
) -> None:
    bucket = {
        "OUTPUT_DIR": "",
        "B2_KEY_ID": "key-id",
        "B2_APP_KEY": "app-s3cr3t",
        "B2_BUCKET_NAME": "talking-avatar",
    }

    with PollLoopDriver(fake_runtime(gpu_class="RTX-3090"), tmp_path, **bucket) as worker:
        worker.wait(worker.submit(order()))

    (started,) = worker.logged("started")
    assert started["queues"] == ["main"]
    assert started["gpu_class"] == "RTX-3090"
    assert started["orchestrator"] == worker.orchestrator.url
    assert "talking-avatar" in started["storage"]
    assert started["spool"] == str(tmp_path / "avatars" / "reports" / "worker-1")
    assert {"version", "engine", "weights", "poll_seconds", "drain_seconds"} <= set(started)
    for secret in (API_KEY, "app-s3cr3t"):
        assert secret not in json.dumps(worker.log)


def test_the_contracts_intervals_are_kept_unless_a_test_is_in_a_hurry() -> None:
    pace = Pace()

    assert pace.heartbeat_seconds == 10
    assert pace.heartbeat_seconds + 2 * pace.heartbeat_patience_seconds < 30
    assert pace.progress_seconds == 1
