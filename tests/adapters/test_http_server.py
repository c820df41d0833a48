"""The HTTP door, asked over loopback by a real client, with an engine that does as it is told."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from adapters import __version__
from adapters.http.jobs import Room
from handler import Success, WorkerBroken, read_result
from handler.ports import Clip
from handler.result import Worker
from handler.testing import FakeEngine, FakeFetch, fake_runtime
from tests.drive_http import MEDIA, PATIENCE_SECONDS, HttpDriver, OpenDoor, open_door

Contract = Callable[[str], dict[str, Any]]


@dataclass
class HeldEngine(FakeEngine):
    """Holds jobs until they may go on; unless it is deaf it asks whether they are still wanted."""

    deaf: bool = False
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_end: threading.Event = field(default_factory=threading.Event)

    def animate(self, avatar: Any, scene: Any, target: Any, tick: Any) -> Clip:
        self.begun.release()
        while not self.may_end.wait(None if self.deaf else 0.01):
            tick(0.5)
        return super().animate(avatar, scene, target, tick)

    def await_job(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE_SECONDS)


@pytest.fixture
def door() -> Iterator[OpenDoor]:
    """Return the door of a worker that does each job at once."""
    with open_door(fake_runtime()) as opened:
        yield opened


@dataclass(frozen=True)
class Held:
    """A worker whose jobs are held up."""

    engine: HeldEngine
    opened: OpenDoor

    @property
    def driver(self) -> Any:
        return self.opened.driver

    def start(self, **fields: Any) -> str:
        """Hand a job over and wait until it has got to the engine."""
        job_id = self.driver.submit(MEDIA | fields)
        self.engine.await_job()
        return job_id


@pytest.fixture
def held() -> Iterator[Held]:
    """Return a worker that has room for one job besides the two that run."""
    engine = HeldEngine()
    with open_door(fake_runtime(engine=engine), room=Room(waiting=1)) as opened:
        yield Held(engine, opened)
        engine.may_end.set()


def shape(example: Any) -> Any:
    """Return the names and types of which an example is made."""
    if isinstance(example, dict):
        return {name: shape(value) for name, value in example.items()}
    return "number" if isinstance(example, int | float) else type(example).__name__


def holds(answer: Any, expected: Any) -> bool:
    """Tell whether an answer has all that is expected; it may have more, and null for anything."""
    if isinstance(expected, dict):
        return all(name in answer and holds(answer[name], expected[name]) for name in expected)
    return answer in (expected, "NoneType")


def test_lesson_7_a_success_is_what_the_contract_shows(
    door: OpenDoor, job: dict[str, Any], contract: Contract
) -> None:
    reply = door.driver.generate(job)

    assert reply.status == 200
    assert holds(shape(reply.body), shape(contract("success")))
    assert isinstance(read_result(reply.body), Success)


def test_lesson_7_a_failure_is_what_the_contract_shows(
    job: dict[str, Any], contract: Contract
) -> None:
    with open_door(fake_runtime(fetch=FakeFetch({}))) as door:
        reply = door.driver.generate(job)

    assert reply.status == 422
    assert holds(reply.body, contract("media_error"))


def test_a_worker_at_fault_says_so_with_500(job: dict[str, Any]) -> None:
    engine = FakeEngine(fault=MemoryError())

    with open_door(fake_runtime(engine=engine)) as door:
        reply = door.driver.generate(job)

    assert reply.status == 500
    assert reply.body["error_code"] == "out_of_memory"
    assert reply.body["retryable"]


def test_a_library_that_would_end_the_process_only_ends_the_job(job: dict[str, Any]) -> None:
    engine = FakeEngine(fault=SystemExit("Goodbye."))

    with open_door(fake_runtime(engine=engine)) as door:
        replies = [door.driver.generate(job) for _ in range(2)]

    assert [reply.status for reply in replies] == [500, 500]
    assert replies[1].body["error_code"] == "unknown_error"


def test_lesson_25_probes_find_the_worker_under_both_names(door: OpenDoor) -> None:
    short, long = door.driver.ask("GET", "/hc"), door.driver.ask("GET", "/health")

    assert (short.status, short.body) == (200, {"status": "ok"})
    assert (long.status, long.body["status"]) == (200, "ok")


def test_lesson_11_health_shows_which_image_really_runs() -> None:
    stale = Worker(version="0.0.9", image_digest="sha256:01d", engine="fake", worker_id="w")

    with open_door(None) as starting, open_door(fake_runtime(worker=stale)) as ready:
        early = starting.driver.ask("GET", "/health").body
        later = ready.driver.ask("GET", "/health").body

    assert (early["status"], early["version"]) == ("starting", __version__)
    assert (later["version"], later["image_digest"]) == ("0.0.9", "sha256:01d")


def test_a_worker_that_starts_says_so_and_takes_no_job() -> None:
    with open_door(None) as door:
        probe, job = door.driver.ask("GET", "/hc"), door.driver.generate(MEDIA)

    assert (probe.status, probe.body) == (503, {"status": "starting"})
    assert job.status == 503
    assert job.body["retryable"]
    assert int(job.headers["Retry-After"]) > 0


def test_salads_queue_worker_finds_the_door_at_localhost(door: OpenDoor) -> None:
    beside = HttpDriver(door.driver.url.replace("127.0.0.1", "localhost"))

    assert beside.generate(MEDIA).status == 200


def test_the_probe_is_answered_while_a_job_blocks_the_engine() -> None:
    engine = HeldEngine(deaf=True)
    with (
        open_door(fake_runtime(engine=engine)) as door,
        ThreadPoolExecutor(1) as caller,
        ExitStack() as at_last,
    ):
        at_last.callback(engine.may_end.set)
        answer = caller.submit(door.driver.generate, MEDIA)
        engine.await_job()

        seconds = []
        for _ in range(20):
            asked = time.monotonic()
            assert door.driver.ask("GET", "/hc").status == 200
            seconds.append(time.monotonic() - asked)

    assert statistics.median(seconds) < 0.1
    assert answer.result().status == 200


def test_two_jobs_run_at_once_and_the_next_wait(held: Held) -> None:
    running = [held.start(), held.start()]
    waiting = held.driver.submit(MEDIA)

    states = [held.driver.look(job_id).body["status"] for job_id in (*running, waiting)]
    held.engine.may_end.set()

    assert states == ["running", "running", "queued"]
    assert held.driver.wait(waiting)["status"] == "success"


def test_more_jobs_than_there_is_room_for_are_sent_elsewhere(held: Held) -> None:
    for _ in range(2):
        held.start()
    held.driver.submit(MEDIA)

    reply = held.driver.ask("POST", "/jobs", json=MEDIA)

    assert reply.status == 503
    assert (reply.body["error_type"], reply.body["error_code"]) == (
        "processing_error",
        "worker_busy",
    )
    assert reply.body["retryable"]
    assert int(reply.headers["Retry-After"]) > 0


def test_a_job_can_be_handed_over_asked_about_and_collected(held: Held) -> None:
    handed = held.driver.ask("POST", "/jobs", json=MEDIA | {"musetalk_job_id": "a.b:c-1"})
    held.engine.await_job()
    meanwhile = held.driver.ask("GET", handed.headers["Location"])
    held.engine.may_end.set()
    held.driver.wait("a.b:c-1")
    after = held.driver.look("a.b:c-1")

    assert (handed.status, handed.body["id"]) == (202, "a.b:c-1")
    assert (meanwhile.status, meanwhile.body["status"]) == (202, "running")
    assert 0 < meanwhile.body["progress"] < 1
    assert (after.status, after.body["output_url"]) == (200, "memory://a.b:c-1.mp4")


def test_a_job_without_an_id_is_known_by_the_one_it_was_given(door: OpenDoor) -> None:
    job_id = door.driver.submit(MEDIA)

    assert door.driver.wait(job_id)["musetalk_job_id"] == job_id


def test_a_collected_failure_comes_with_its_own_status() -> None:
    with open_door(fake_runtime(fetch=FakeFetch({}))) as door:
        job_id = door.driver.submit(MEDIA)
        door.driver.wait(job_id)

        assert door.driver.look(job_id).status == 422


def test_progress_is_sent_as_it_comes_and_ends_with_the_result(held: Held) -> None:
    events = held.driver.events(held.start())

    first = next(events)
    held.engine.may_end.set()
    *_, (_, last), (name, result) = events

    assert first[0] == "progress"
    assert (first[1]["status"], first[1]["phase"]) == ("running", "inferring")
    assert (last["progress"], last["phase"]) == (1.0, "completed")
    assert (name, result["status"]) == ("result", "success")


@pytest.mark.parametrize("kind", ["running", "waiting"])
def test_a_job_can_be_taken_back_within_two_seconds(held: Held, kind: str) -> None:
    running = [held.start(), held.start()]
    job_id = running[0] if kind == "running" else held.driver.submit(MEDIA)

    asked = time.monotonic()
    held.driver.cancel(job_id)
    result = held.driver.wait(job_id)

    assert time.monotonic() - asked < 2
    assert (result["error_type"], result["retryable"]) == ("cancelled", False)
    assert held.driver.look(job_id).status == 499
    assert held.driver.look(running[1]).status == 202


def test_what_has_ended_cannot_be_taken_back(door: OpenDoor) -> None:
    job_id = door.driver.submit(MEDIA)
    door.driver.wait(job_id)

    reply = door.driver.cancel(job_id)

    assert (reply.status, reply.body["status"]) == (200, "success")


def call(held: Held, job: dict[str, Any]) -> http.client.HTTPConnection:
    """Ask for a job to be done, and return the open connection once it runs."""
    address = urlsplit(held.driver.url)
    caller = http.client.HTTPConnection(address.hostname, address.port)
    caller.request("POST", "/generate", json.dumps(job))
    held.engine.await_job()
    return caller


def test_a_caller_that_hangs_up_takes_the_job_back_within_two_seconds(held: Held) -> None:
    caller = call(held, MEDIA | {"musetalk_job_id": "dropped"})

    gone = time.monotonic()
    caller.close()
    result = held.driver.wait("dropped")

    assert time.monotonic() - gone < 2
    assert result["error_type"] == "cancelled"


def test_a_job_is_not_taken_back_while_somebody_else_waits_for_it(held: Held) -> None:
    job = MEDIA | {"musetalk_job_id": "shared"}
    caller = call(held, job)
    held.driver.submit(job)
    caller.close()
    # Once the worker has noticed this one, it has noticed the other long ago.
    call(held, MEDIA | {"musetalk_job_id": "later"}).close()
    held.driver.wait("later")

    held.engine.may_end.set()

    assert held.driver.wait("shared")["status"] == "success"


def test_the_same_job_sent_again_while_it_runs_is_done_once(held: Held) -> None:
    job = MEDIA | {"musetalk_job_id": "twice"}
    held.start(musetalk_job_id="twice")

    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(held.driver.generate, job)
        again = held.driver.ask("POST", "/jobs", json=job)
        running = held.driver.ask("GET", "/health").body["jobs"]
        held.engine.may_end.set()

    assert (again.status, again.body["id"]) == (202, "twice")
    assert running == {"running": 1, "waiting": 0}
    assert answer.result().body["musetalk_job_id"] == "twice"


def test_another_job_under_the_id_of_one_that_runs_is_refused(held: Held) -> None:
    held.start(musetalk_job_id="taken")

    reply = held.driver.generate(MEDIA | {"musetalk_job_id": "taken", "sync_mode": "loop"})

    assert reply.status == 409
    assert reply.body["error_code"] == "job_id_taken"
    assert reply.body["details"] == {"field": "musetalk_job_id"}


def test_finished_jobs_are_forgotten_oldest_first() -> None:
    with open_door(fake_runtime(), room=Room(remembered=2)) as door:
        ids = [door.driver.generate(MEDIA).body["musetalk_job_id"] for _ in range(3)]
        # Room is made when somebody comes.
        statuses = [door.driver.look(job_id).status for job_id in ids]

    assert statuses == [404, 200, 200]


def test_finished_jobs_are_forgotten_after_a_while() -> None:
    with open_door(fake_runtime(), room=Room(remembered_seconds=0)) as door:
        job_id = door.driver.generate(MEDIA).body["musetalk_job_id"]

        assert door.driver.look(job_id).status == 404


def test_a_broken_worker_answers_and_then_takes_no_other_job() -> None:
    engine = HeldEngine(fault=WorkerBroken("The GPU is gone."))
    with open_door(fake_runtime(engine=engine), room=Room(running=1)) as door:
        held = Held(engine, door)
        broken, waiting = held.start(), door.driver.submit(MEDIA)
        engine.may_end.set()

        results = [door.driver.wait(job_id) for job_id in (broken, waiting)]
        probe, later = door.driver.ask("GET", "/hc"), door.driver.generate(MEDIA)
        health = door.driver.ask("GET", "/health").body

    assert [result["error_code"] for result in results] == ["worker_broken", "worker_unavailable"]
    assert all(result["retryable"] for result in results)
    assert (probe.status, probe.body) == (503, {"status": "unhealthy"})
    assert health["reason"] == "The GPU is gone."
    assert (later.status, later.body["retryable"]) == (503, True)


def test_prometheus_gets_its_numbers(door: OpenDoor) -> None:
    door.driver.generate(MEDIA)
    door.driver.generate({})

    page = door.driver.ask("GET", "/metrics").body

    for line in (
        "musetalk_worker_ready 1.0",
        'musetalk_jobs_total{end="success"} 1.0',
        'musetalk_refusals_total{error_code="invalid_job"} 1.0',
        "musetalk_job_seconds_count 1.0",
        "musetalk_frames_total 25.0",
    ):
        assert line in page


def test_a_job_that_was_done_before_does_not_count_as_done_again(door: OpenDoor) -> None:
    door.driver.generate(MEDIA | {"musetalk_job_id": "twice"})
    again = door.driver.generate(MEDIA | {"musetalk_job_id": "twice"})

    page = door.driver.ask("GET", "/metrics").body

    assert again.body["replayed"]
    for line in (
        'musetalk_jobs_total{end="success"} 1.0',
        'musetalk_jobs_total{end="replayed"} 1.0',
        "musetalk_job_seconds_count 1.0",
        "musetalk_frames_total 25.0",
    ):
        assert line in page


def test_each_job_leaves_one_line_in_the_log(door: OpenDoor) -> None:
    door.driver.generate(MEDIA | {"musetalk_job_id": "fine"})
    door.driver.generate(MEDIA | {"musetalk_job_id": "wrong", "crf": 1})

    told = [(line["message"], line["musetalk_job_id"]) for line in door.logged]

    assert told == [("job done", "fine"), ("refused", "wrong")]
