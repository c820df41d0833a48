"""What operators read: one JSON object a line on stderr, one line a job, no secrets."""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any, TextIO

import structlog
from structlog.typing import FilteringBoundLogger

from handler.redaction import redact_all
from handler.result import Failure, Result

Log = FilteringBoundLogger


def open_log(stream: TextIO | None = None, **facts: Any) -> Log:
    """Return a log whose every line carries the given facts, such as who the worker is."""
    log: Log = structlog.wrap_logger(
        _Lines(stream or sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.EventRenamer("message"),
            _without_secrets,
            structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=False),
        ],
        **facts,
    )
    return log


class _Lines(structlog.WriteLogger):
    """Write lines where that can be done: a full disk or a broken pipe must not cost a job."""

    def msg(self, message: str) -> None:
        """Write one."""
        with suppress(OSError):
            super().msg(message)

    info = warning = error = msg


def _without_secrets(_: Any, __: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Redact a whole line by the rule that results obey, whoever wrote it."""
    redacted: Mapping[str, Any] = redact_all(line)
    return redacted


def log_result(log: Log, result: Result) -> None:
    """Write the one line of a job."""
    if not isinstance(result, Failure):
        log.info("job done", **facts_of(result))
    elif result.error_type == "cancelled":
        log.info("job failed", **facts_of(result))
    else:
        log.warning("job failed", **facts_of(result))


def facts_of(result: Result) -> dict[str, Any]:
    """Return what one line says of a job."""
    if isinstance(result, Failure):
        return {
            "musetalk_job_id": result.musetalk_job_id,
            "error_code": result.error_code,
            "stage": result.stage,
            "retryable": result.retryable,
            "error_message": result.error_message,
            "stage_times": result.stage_times,
        }
    metrics = result.metrics
    return {
        "musetalk_job_id": result.musetalk_job_id,
        "total_time": metrics.total_time,
        "stage_times": metrics.stage_times,
        "frames": metrics.frames,
        "avatar_cache": metrics.avatar_cache,
        "attempts": metrics.attempts,
        "replayed": result.replayed,
        "warnings": len(result.warnings),
    }
