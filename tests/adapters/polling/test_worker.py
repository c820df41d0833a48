"""The poll loop's worker: its settings, its start and its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.config import ConfigError
from adapters.health import HealthStatus
from adapters.poll_loop import Pace
from handler import WorkerBroken
from handler.testing import FakeEngine, MemoryStore, fake_runtime
from tests.drive_poll_loop import Filming, Order, PollLoopDriver
from tests.orchestrator import (
    API_KEY,
    FakeOrchestrator,
)


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
