"""What came of a job: told to the orchestrator until it is heard, and once."""

from __future__ import annotations

import io
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from adapters.config import Config
from adapters.health import Health, HealthStatus
from adapters.log import open_log
from adapters.poll_loop import PollWorker
from handler import Runtime
from handler.testing import fake_runtime
from tests.drive_poll_loop import AS_BUFFER, BRISK, Filming, Order, PollLoopDriver, environment
from tests.orchestrator import (
    PATIENCE_SECONDS,
    FakeOrchestrator,
    Trouble,
    answers,
    drops,
    drops_answer,
    garbage,
)


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
