"""What operators read."""

from __future__ import annotations

import errno
import io
import json
from typing import Any, Never

from adapters.log import log_result, open_log
from handler import Runtime, handle
from handler.errors import FetchFailed
from handler.testing import FakeEngine, fake_runtime

SIGNED = "https://user:pass@example.com/face.mp4?X-Amz-Signature=secret"


def lines_of(job: dict[str, Any], runtime: Runtime) -> list[dict[str, Any]]:
    """Return the log of a job."""
    stream = io.StringIO()
    log_result(open_log(stream, worker_id="worker-1"), handle(job, runtime))
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_job_that_is_done_is_one_line_with_all_that_it_cost(job: dict[str, Any]) -> None:
    (line,) = lines_of(job, fake_runtime())

    assert line["message"] == "job done"
    assert line["musetalk_job_id"] == "job-123"
    assert line["worker_id"] == "worker-1"
    assert line["attempts"] == {"video": 1, "audio": 1, "upload": 1}
    assert set(line["stage_times"]) == {"download", "validation", "inference", "upload"}
    assert line["level"] == "info"


def test_a_job_that_failed_is_one_line_that_says_where_and_who_must_act(
    job: dict[str, Any],
) -> None:
    (line,) = lines_of(job, fake_runtime(engine=FakeEngine(fault=RuntimeError("what now?"))))

    assert line["message"] == "job failed"
    assert (line["stage"], line["error_code"]) == ("inference", "unknown_error")
    assert line["level"] == "warning"


def test_no_line_carries_a_secret_whoever_wrote_it(job: dict[str, Any]) -> None:
    stream = io.StringIO()
    log = open_log(stream, source=SIGNED)
    trouble = FetchFailed(f"no answer from {SIGNED}", url=SIGNED)

    event = "lost " + SIGNED
    log.warning(event, body={"url": SIGNED, "tries": [SIGNED]}, error=trouble)

    assert "secret" not in stream.getvalue()
    assert "pass" not in stream.getvalue()
    assert "https://example.com/face.mp4" in stream.getvalue()


class FullDisk(io.StringIO):
    """A file for which there is no more room."""

    def flush(self) -> Never:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_lines_and_no_job(job: dict[str, Any]) -> None:
    log = open_log(FullDisk())
    result = handle(job, fake_runtime())

    log_result(log, result)
    log.error("cannot start")

    assert result.status == "success"


def test_what_is_no_json_is_logged_all_the_same() -> None:
    stream = io.StringIO()

    open_log(stream).info("odd", value=float("nan"), raw=b"\xff", path={1: object})

    assert json.loads(stream.getvalue())["value"] == "nan"
