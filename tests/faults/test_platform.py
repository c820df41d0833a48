"""Cases 45 to 48: orchestrators that fail or change their minds, signals, and poison."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from handler import Failure, read_result
from tests.adapters.transfer.loopback import body, serving
from tests.conftest import ASSETS
from tests.drive_poll_loop import child, outcome
from tests.faults.aftermath import (
    QUERY,
    Dynasty,
    Lines,
    Watched,
    settings,
    signed,
    verdict,
    wait_until,
)
from tests.orchestrator import FakeOrchestrator, answers
from tests.steered_engine import Held, Stage

#: As it is deployed, but for its hurry, and an engine whose jobs may wait for the test.
STEERED_WORKER = (sys.executable, "-m", "tests.steered_worker", "poll loop")
GIVEN_BACK = ("processing_error", True, "inference")
POISON = ("processing_error", False, "inference")


@pytest.fixture(scope="module")
def orchestrator() -> Iterator[FakeOrchestrator]:
    with FakeOrchestrator().serving() as fake:
        yield fake


@contextmanager
def claiming(
    orchestrator: FakeOrchestrator, place: Path, good: Mapping[str, Any], **env: str
) -> Iterator[Watched]:
    """Start a worker that claims its jobs from an orchestrator."""

    def ask(job: dict[str, Any]) -> Mapping[str, Any]:
        name = orchestrator.submit({"musetalk_job_id": uuid.uuid4().hex, **job})
        return outcome(orchestrator, name)

    words = settings(place, SUPERVISED="true", **env)
    with child(orchestrator, place, *STEERED_WORKER, **words) as worker:
        assert worker.process.stderr
        log = Lines(worker.process.stderr)
        try:
            log.until('"started"')
            process, scratch = worker.process, Path(words["TMPDIR"])
            yield Watched(process.pid, scratch, good, ask, log, process=process)
        finally:
            worker.kill()
            log.close()


@pytest.fixture(scope="module")
def dynasty(
    tmp_path_factory: pytest.TempPathFactory,
    good: Mapping[str, str],
    orchestrator: FakeOrchestrator,
) -> Iterator[Dynasty]:
    place = tmp_path_factory.mktemp("platform")
    dynasty = Dynasty(partial(claiming, orchestrator, place, good))
    yield dynasty
    dynasty.close()


@pytest.fixture
def watched(dynasty: Dynasty) -> Watched:
    return dynasty.worker


def stored(worker: Watched, name: str) -> list[str]:
    """Return what was stored of a job."""
    return [path.name for path in (worker.scratch.parent / "out").glob(f"{name}*")]


@contextmanager
def at_work(worker: Watched, orchestrator: FakeOrchestrator, name: str) -> Iterator[Held]:
    """Have a worker come to the middle of a job."""
    with Stage() as stage:
        # Late it is not: whatever ends it is what the test does.
        asked = {"musetalk_job_id": name, "metadata": stage.directions, "deadline_seconds": 600}
        orchestrator.submit({**worker.good, **asked})
        with closing(stage.await_engine().line) as line:
            yield Held(line)


# -- 45: nobody takes the report -------------------------------------------------------------------


def test_45_a_job_whose_report_was_lost_is_told_again_without_being_done_again(
    orchestrator: FakeOrchestrator,
    tmp_path: Path,
    good: Mapping[str, Any],
    film: Path,
    name: str,
) -> None:
    with serving(body(film.read_bytes())) as site:
        job = {**good, "musetalk_job_id": name, "video_url": signed(site.url)}
        orchestrator.trouble["/progress"] = answers(500)
        orchestrator.submit(job)
        with claiming(orchestrator, tmp_path, good) as worker:
            worker.log.until('"job done"', name)
            worker.log.until('"report not taken"', name)
        orchestrator.trouble.clear()
        # Where the report was kept is gone, too.
        spool = {"SPOOL_DIR": f"{tmp_path / 'other'}"}
        with claiming(orchestrator, tmp_path, good, **spool) as heir:
            told = heir.film(**job)

            heir.assert_unharmed()
            assert '"replayed": true' in heir.log.text
    assert len(site.seen) == 1
    assert told.output_url.endswith(f"{name}.mp4")


# -- 46: the orchestrator changes its mind ---------------------------------------------------------


def test_46_heartbeats_that_nobody_takes_stop_no_job(
    worker: Watched, orchestrator: FakeOrchestrator
) -> None:
    orchestrator.trouble["/heartbeat"] = answers(500)
    worker.log.until('"heartbeat failed"', '"status_code": 500')

    told = worker.film()
    orchestrator.trouble.clear()

    assert told.status == "success"


@pytest.mark.parametrize(
    "code", [pytest.param(409, id="46 conflict"), pytest.param(410, id="46 gone")]
)
def test_a_job_that_is_somebody_elses_now_is_neither_stored_nor_reported(
    worker: Watched, orchestrator: FakeOrchestrator, name: str, code: int
) -> None:
    with at_work(worker, orchestrator, name) as held:
        orchestrator.trouble["/progress"] = answers(code)

        held.await_end()
    worker.log.until('"job is not ours any more"', name)
    orchestrator.trouble.clear()

    assert stored(worker, name) == []
    assert orchestrator.tickets[name].report is None


def test_46_a_job_that_is_taken_back_leaves_nobody_at_work(
    worker: Watched, orchestrator: FakeOrchestrator, name: str
) -> None:
    face, voice = ((ASSETS / file).read_bytes() for file in ("face.mp4", "voice.wav"))
    with serving(body(face)) as faces, serving(body(voice)) as voices:
        urls = {"video_url": f"{faces.url}/f?{QUERY}", "audio_url": f"{voices.url}/v?{QUERY}"}
        orchestrator.submit({"musetalk_job_id": name, **urls})
        wait_until(lambda: len(worker.family()) > worker.processes)

        orchestrator.take_away(name)
        worker.log.until('"job is not ours any more"', name)

    assert len(worker.family()) == worker.processes
    assert stored(worker, name) == []


# -- 47: told to stop ------------------------------------------------------------------------------


def test_47_a_worker_without_a_job_stops_at_once(dynasty: Dynasty) -> None:
    stopped = dynasty.worker

    stopped.tell(signal.SIGTERM)

    assert stopped.exit_code() == 0
    stopped.assert_tidy()
    dynasty.succeed().assert_unharmed()


def test_47_a_worker_that_has_time_finishes_its_job(
    dynasty: Dynasty, orchestrator: FakeOrchestrator, name: str
) -> None:
    stopped = dynasty.worker
    with at_work(stopped, orchestrator, name) as held:
        stopped.tell(signal.SIGTERM)
        stopped.log.until('"stopping"')
        held.go_on()

        assert stopped.exit_code() == 0
    assert outcome(orchestrator, name)["status"] == "success"
    stopped.assert_tidy()
    dynasty.succeed().assert_unharmed()


def test_47_a_worker_that_has_no_time_gives_its_job_back(
    dynasty: Dynasty, orchestrator: FakeOrchestrator, name: str
) -> None:
    stopped = dynasty.succeed(DRAIN_SEC="0.2")
    with at_work(stopped, orchestrator, name):
        stopped.tell(signal.SIGTERM)

        assert stopped.exit_code() == 0
    failure = read_result(outcome(orchestrator, name))
    assert isinstance(failure, Failure)
    assert verdict(failure) == GIVEN_BACK
    stopped.assert_tidy()
    dynasty.succeed().assert_unharmed()


def test_47_a_worker_that_is_told_twice_ends_at_once(
    dynasty: Dynasty, orchestrator: FakeOrchestrator, name: str
) -> None:
    stopped = dynasty.succeed(DRAIN_SEC="600")
    with at_work(stopped, orchestrator, name):
        stopped.tell(signal.SIGTERM)
        stopped.log.until('"stopping"')
        stopped.tell(signal.SIGTERM)

        assert stopped.exit_code() == 128 + signal.SIGTERM
    # What it had no time to tidy up is gone with the next.
    dynasty.succeed().assert_unharmed()


# -- 48: poison ------------------------------------------------------------------------------------


def test_48_a_job_that_killed_two_workers_is_not_given_the_third(
    dynasty: Dynasty, orchestrator: FakeOrchestrator, name: str
) -> None:
    for _ in range(2):
        with at_work(dynasty.worker, orchestrator, name):
            dynasty.worker.tell(signal.SIGKILL)
            assert dynasty.worker.exit_code() == -signal.SIGKILL
        dynasty.succeed()

    failure = dynasty.worker.fail(musetalk_job_id=name)

    assert verdict(failure) == POISON
    assert failure.error_code == "poison_job"
    dynasty.worker.assert_unharmed()
