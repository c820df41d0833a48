"""What the HTTP door says no to, in the one failure shape (docs/contract.md section 2)."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

from handler.errors import ErrorType, ProcessingError, Stage, WorkerError
from handler.redaction import redact, redact_all
from handler.result import Failure, Worker

#: How long whoever was told to come back later should wait.
RETRY_AFTER_SECONDS = 10


class Refused(WorkerError):
    """The request is not one that this door answers."""

    error_type = ErrorType.MEDIA
    error_code = "refused"
    retryable = False
    stage = Stage.VALIDATION


class Unauthorized(Refused):
    """The request carries no token, or the wrong one."""

    error_code = "unauthorized"


class JobUnknown(Refused):
    """No job of this id is known here, or it ended so long ago that it was forgotten."""

    error_code = "job_unknown"


class JobIdTaken(Refused):
    """Another job of this id has not ended yet."""

    error_code = "job_id_taken"


class WorkerBusy(ProcessingError):
    """As many jobs as may wait are waiting already."""

    error_code = "worker_busy"


class WorkerUnavailable(ProcessingError):
    """The worker is starting, stopping or broken."""

    error_code = "worker_unavailable"


def failure_of(
    error: BaseException, job_id: str | None = None, worker: Worker | None = None
) -> Failure:
    """Describe what the core never saw, or let through; if nobody foresaw it, with its stack."""
    if not isinstance(error, WorkerError):
        return Failure(
            error_type=ErrorType.UNKNOWN,
            error_message=redact(str(error)) or type(error).__name__,
            stage=Stage.UNKNOWN,
            stack_trace=redact("".join(traceback.format_exception(error))),
            retryable=False,
            error_code="unknown_error",
            musetalk_job_id=job_id,
            worker=worker,
        )
    return Failure(
        error_type=error.error_type,
        error_message=redact(error.message),
        stage=error.stage or Stage.UNKNOWN,
        details=redact_all(error.details),
        retryable=error.retryable,
        error_code=error.error_code,
        musetalk_job_id=job_id,
        worker=worker,
    )


def status_of(error: Exception, failure: Failure) -> int:
    """Return the status a refusal is answered with; a job that is wrong in itself gets 422."""
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), None) or (
        failure.http_status
    )


def headers_of(error: Exception) -> dict[str, str]:
    """Return what the status of a refusal obliges to say."""
    if isinstance(error, WorkerBusy | WorkerUnavailable):
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else {}


_STATUS: Mapping[type[WorkerError], int] = {
    Unauthorized: 401,
    JobUnknown: 404,
    JobIdTaken: 409,
    WorkerBusy: 503,
    WorkerUnavailable: 503,
}
