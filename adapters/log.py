"""What operators read: one JSON object a line on stderr, one line a job, no secrets."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import structlog
from structlog.typing import FilteringBoundLogger

from handler.redaction import redact
from handler.result import Failure, Result

Log = FilteringBoundLogger


def open_log(stream: TextIO | None = None, **facts: Any) -> Log:
    """Return a log whose every line carries the given facts, such as who the worker is."""
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=False),
        ],
        **facts,
    )
    return log


def log_result(log: Log, result: Result) -> None:
    """Write the one line of a job."""
    if isinstance(result, Failure):
        write = log.info if result.error_type == "cancelled" else log.warning
        write(
            "job failed",
            musetalk_job_id=result.musetalk_job_id,
            error_code=result.error_code,
            stage=result.stage,
            retryable=result.retryable,
            error_message=redact(result.error_message),
            stage_times=result.stage_times,
        )
        return
    metrics = result.metrics
    log.info(
        "job done",
        musetalk_job_id=result.musetalk_job_id,
        total_time=metrics.total_time,
        stage_times=metrics.stage_times,
        frames=metrics.frames,
        avatar_cache=metrics.avatar_cache,
        warnings=len(result.warnings),
    )
