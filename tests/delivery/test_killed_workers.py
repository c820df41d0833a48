"""Workers that are killed with SIGKILL: cases 41 and 48 of the reliability notes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adapters.journal import DiskJournal
from adapters.workspace import Workspaces
from handler import Failure, Success, handle
from tests.delivery.service import Fault, Service, hang
from tests.delivery.worker import JOB, PART_BYTES, TakeEngine, bucket_runtime

STAGES = ("download", "validation", "preprocessing", "inference", "postprocessing", "upload")
KILLED = -9


def start(service: Service, place: Path, moment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.delivery.worker", service.url, place, moment]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2])


def kill_at(service: Service, place: Path, moment: str) -> None:
    """Have a worker killed when its job has come so far."""
    with start(service, place, moment) as worker:
        assert worker.wait(timeout=60) == KILLED


def kill_while_hanging(service: Service, place: Path, fault: Fault) -> None:
    """Kill a worker from outside, in the middle of a request."""
    service.faults = [fault]
    with start(service, place, "never") as worker:
        assert service.hanging.wait(timeout=60)
        worker.kill()
    service.faults.clear()


def redeliver(service: Service, place: Path) -> Success:
    """Do the job in another process than the one that was killed, and with its leftovers."""
    workspaces = Workspaces(place / "jobs")
    workspaces.sweep()
    engine = TakeEngine(2 * PART_BYTES)
    journal = DiskJournal(place / "journal")

    result = handle(
        JOB,
        bucket_runtime(service.url, engine=engine, journal=journal, workspace=workspaces),
    )

    assert isinstance(result, Success), result
    assert list((place / "jobs").iterdir()) == []
    assert list((place / "journal").iterdir()) == []
    return result


def is_the_one_valid_result(service: Service, result: Success) -> bool:
    assert service.names() == ["out/job-7.json", "out/job-7.mp4"]
    assert service.record("job-7").success == result.model_copy(update={"replayed": False})
    return service.sha256("job-7") == result.output.sha256


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_killed_at_a_stage_boundary_costs_the_job_nothing_but_time(
    service: Service, tmp_path: Path, stage: str
) -> None:
    kill_at(service, tmp_path, stage)
    seen_between = service.names()

    result = redeliver(service, tmp_path)

    assert seen_between == []
    assert is_the_one_valid_result(service, result)
    assert not result.replayed


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (Fault("PUT", "partNumber=2", hang), []),
        (Fault("POST", "uploadId", hang), []),
        (Fault("PUT", ".json", hang), ["out/job-7.mp4"]),
    ],
    ids=["in its upload", "at the end of its upload", "before its record"],
)
def test_a_worker_killed_in_its_delivery_leaves_nothing_half(
    service: Service, tmp_path: Path, fault: Fault, seen: list[str]
) -> None:
    kill_while_hanging(service, tmp_path, fault)
    seen_between = service.names()

    result = redeliver(service, tmp_path)

    assert seen_between == seen
    assert is_the_one_valid_result(service, result)


def test_a_worker_killed_before_it_could_tell_of_its_success_has_it_told_by_another(
    service: Service, tmp_path: Path
) -> None:
    kill_at(service, tmp_path, "completed")

    result = redeliver(service, tmp_path)

    assert is_the_one_valid_result(service, result)
    assert result.replayed


def test_a_job_that_killed_two_workers_is_refused_and_the_third_lives_on(
    service: Service, tmp_path: Path
) -> None:
    for _ in range(2):
        kill_at(service, tmp_path, "inference")
    engine = TakeEngine()
    journal = DiskJournal(tmp_path / "journal")
    runtime = bucket_runtime(service.url, engine=engine, journal=journal)

    refused = [handle(JOB, runtime) for _ in range(2)]
    other = handle(JOB | {"musetalk_job_id": "job-8"}, runtime)

    assert engine.takes == 1
    for result in refused:
        assert isinstance(result, Failure)
        assert (result.error_type, result.error_code) == ("processing_error", "poison_job")
        assert (result.stage, result.retryable) == ("inference", False)
        assert result.details == {"times_killed": 2}
    assert other.status == "success"
