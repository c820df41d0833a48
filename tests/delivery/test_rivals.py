"""One job on two workers at once: case 43 of the reliability notes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from handler import Failure, Result, Runtime, Success, handle
from handler.job import Job
from handler.ports import Clip, Records, Scene, Stored
from handler.progress import Tick
from handler.record import Record
from handler.testing import FakeAvatar
from tests.delivery.service import Door, Fault, Service
from tests.delivery.worker import (
    JOB,
    OTHER_JOB,
    Make,
    TakeEngine,
    bucket_runtime,
    directory_runtime,
)


class MeetingEngine(TakeEngine):
    """Ends its work when all others have ended theirs."""

    def __init__(self, meeting: threading.Barrier) -> None:
        super().__init__()
        self._meeting = meeting

    def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        clip = super().animate(avatar, scene, target, tick)
        self._meeting.wait(timeout=30)
        return clip


@dataclass
class Interrupted:
    """Another worker does all of a job just before or after this one's video is stored."""

    runtime: Runtime
    rival: Callable[[], Result]
    before: bool
    heard: list[Result] = field(default_factory=list)

    def __call__(self, path: Path, job: Job, tick: Tick) -> Stored:
        if self.before:
            self.heard.append(self.rival())
        stored = self.runtime.store(path, job, tick)
        if not self.before:
            self.heard.append(self.rival())
        return stored


def test_two_workers_at_once_give_two_valid_answers_and_one_record(make: Make) -> None:
    meeting = threading.Barrier(4)
    runtimes = [make(engine=MeetingEngine(meeting)) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda runtime: handle(JOB, runtime), runtimes))

    last = handle(JOB, make())
    assert [result.status for result in results] == ["success"] * 4
    assert {result.output_url for result in results} == {last.output_url}
    assert last.replayed
    assert last.output.sha256 in {result.output.sha256 for result in results}


def test_on_a_store_that_compares_all_answers_tell_of_the_same_bytes(service: Service) -> None:
    meeting = threading.Barrier(4)
    runtimes = [bucket_runtime(service.url, engine=MeetingEngine(meeting)) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda runtime: handle(JOB, runtime), runtimes))

    assert {result.output.sha256 for result in results} == {service.sha256("job-7")}
    assert service.record("job-7").sha256 == service.sha256("job-7")


@pytest.mark.parametrize("compares", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_a_worker_that_is_overtaken_answers_with_what_lies_there(
    service: Service, *, before: bool, compares: bool
) -> None:
    service.compares = compares
    plain = bucket_runtime(service.url)
    store = Interrupted(plain, lambda: handle(JOB, bucket_runtime(service.url)), before)

    late = handle(JOB, bucket_runtime(service.url, store=store))

    [early] = store.heard
    assert isinstance(late, Success)
    assert late.output.sha256 == early.output.sha256 == service.sha256("job-7")
    assert service.record("job-7").sha256 == service.sha256("job-7")
    assert late.replayed


@pytest.mark.parametrize("before", [True, False])
def test_a_worker_that_is_overtaken_in_a_directory_leaves_a_true_record(
    tmp_path: Path, *, before: bool
) -> None:
    rival = lambda: handle(JOB, directory_runtime(tmp_path))  # noqa: E731
    store = Interrupted(directory_runtime(tmp_path), rival, before)

    late = handle(JOB, directory_runtime(tmp_path, store=store))

    after = handle(JOB, directory_runtime(tmp_path))
    assert isinstance(late, Success)
    assert after.replayed
    assert after.output.sha256 == late.output.sha256


@dataclass
class Dispute:
    """The worst that B2 lets happen: the first video is replaced, and its record comes last."""

    both_uploading: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))
    first_stored: threading.Event = field(default_factory=threading.Event)
    second_recorded: threading.Event = field(default_factory=threading.Event)

    def at_video(self, door: Door) -> bool:
        if self.both_uploading.wait(timeout=30) == 0:
            return False
        return not self.first_stored.wait(timeout=30)

    def at_record(self, door: Door) -> bool:
        if not self.first_stored.is_set():
            self.first_stored.set()
            return not self.second_recorded.wait(timeout=30)
        door.serve(door.take())
        self.second_recorded.set()
        return True


def test_a_video_that_b2_let_be_replaced_is_not_the_one_on_record(service: Service) -> None:
    service.compares = False
    dispute = Dispute()
    service.faults = [
        Fault("PUT", ".mp4", dispute.at_video, times=2),
        Fault("PUT", ".json", dispute.at_record, times=2),
    ]

    with ThreadPoolExecutor(2) as pool:
        runtimes = [bucket_runtime(service.url) for _ in range(2)]
        results = list(pool.map(lambda runtime: handle(JOB, runtime), runtimes))

    assert {result.output.sha256 for result in results} == {service.sha256("job-7")}
    assert service.record("job-7").sha256 == service.sha256("job-7")


def test_a_worker_whose_job_was_done_by_another_meanwhile_changes_nothing(make: Make) -> None:
    early: list[Result] = []

    class SlowEngine(TakeEngine):
        def animate(self, *args: Any) -> Clip:
            clip = super().animate(*args)
            early.append(handle(JOB, make()))
            return clip

    late = handle(JOB, make(engine=SlowEngine()))

    assert late == early[0].model_copy(update={"replayed": True})
    assert handle(JOB, make()) == late


@pytest.mark.parametrize("compares", [True, False])
def test_of_two_jobs_with_one_id_at_once_the_second_is_refused_and_the_first_unharmed(
    service: Service, *, compares: bool
) -> None:
    service.compares = compares
    plain = bucket_runtime(service.url)
    rival = lambda: handle(OTHER_JOB, bucket_runtime(service.url))  # noqa: E731
    store = Interrupted(plain, rival, before=True)

    late = handle(JOB, bucket_runtime(service.url, store=store))

    [early] = store.heard
    assert isinstance(late, Failure)
    assert late.error_code == "idempotency_conflict"
    assert early.output.sha256 == service.sha256("job-7") == service.record("job-7").sha256


def test_a_record_that_lost_the_race_by_a_hair_is_not_written_twice(service: Service) -> None:
    """The other worker's record comes between the last look and our own write."""
    plain = bucket_runtime(service.url)
    rival = bucket_runtime(service.url)

    class Raced:
        def find(self, job: Job, tick: Tick) -> Record | None:
            return plain.records.find(job, tick)

        def commit(self, job: Job, record: Record, tick: Tick) -> Record:
            def tick_late(fraction: float) -> None:
                if not heard and service.seen[-1][1].endswith("job-7.json"):
                    heard.append(handle(JOB, rival))
                tick(fraction)

            return plain.records.commit(job, record, tick_late)

    heard: list[Any] = []
    records: Records = Raced()

    late = handle(JOB, bucket_runtime(service.url, store=plain.store, records=records))

    [early] = heard
    assert isinstance(late, Success)
    assert late.replayed
    assert late == early.model_copy(update={"replayed": True})
