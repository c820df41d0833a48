"""How far a job of the orchestrator is, and whose it is: told often enough, and heeded."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from adapters.polling.lease import Lease
from adapters.polling.queues import Claimed, Identity, MainQueue
from handler import Job
from handler.ports import Clip, Scene, Stored
from handler.progress import Phase, Progress, Tick
from handler.testing import FakeAvatar, FakeEngine, MemoryStore, fake_runtime
from tests.drive_poll_loop import BRISK, Filming, Order, PollLoopDriver
from tests.orchestrator import (
    PATIENCE_SECONDS,
    FakeOrchestrator,
    answers,
    holds,
)


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
    orchestrator = FakeOrchestrator(trouble={"/jobs/lost/": holds(engine.rolling, answers(status))})

    runtime = fake_runtime(engine=engine, store=store)
    with PollLoopDriver(runtime, tmp_path, orchestrator=orchestrator) as worker:
        worker.submit(order("lost"))
        orchestrator.wait(lambda: worker.logged("job is not ours any more"))
        engine.cut.set()
        worker.wait(worker.submit(order("next")))

    assert set(store.videos) == {"next"}
    said = [call.body["status"] for call in orchestrator.calls if "/jobs/lost/" in call.path]
    assert said == ["running"]
    (line,) = [line for line in worker.log if line.get("musetalk_job_id") == "lost"]
    assert line["stage"] == "inference"


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
