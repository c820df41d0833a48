"""What requests are refused for, in the one failure shape (docs/contract.md section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException

from handler.errors import ErrorType, ProcessingError, Stage, WorkerError
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


class ResultExpired(Refused):
    """The job ended so long ago that its result is no longer kept, or never was."""

    error_code = "result_expired"


class WorkerBusy(ProcessingError):
    """As many jobs as may wait are waiting already."""

    error_code = "worker_busy"


class WorkerUnavailable(ProcessingError):
    """The worker is starting, stopping or broken."""

    error_code = "worker_unavailable"


def refusal(
    error: Exception, job_id: str | None, worker: Worker | None = None
) -> tuple[Failure, int]:
    """Return what a request that was not even begun is answered with, and by which status."""
    if isinstance(error, HTTPException):
        return _misdirection(HTTPStatus(error.status_code)), error.status_code
    failure = Failure.of(error, musetalk_job_id=job_id, worker=worker)
    known = (status for kind, status in _STATUS.items() if isinstance(error, kind))
    status = next(known, failure.http_status)
    if status != HTTPStatus.INTERNAL_SERVER_ERROR:
        # To refuse is no accident whose cause one would look for.
        failure = failure.model_copy(update={"stack_trace": None})
    return failure, status


def headers_of(error: Exception) -> dict[str, str]:
    """Return what the status of a refusal obliges to say."""
    if isinstance(error, HTTPException):
        return dict(error.headers or {})
    if isinstance(error, WorkerBusy | WorkerUnavailable):
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else {}


def _misdirection(status: HTTPStatus) -> Failure:
    """Answer what asks for a page that is not there, or for something else than is done there."""
    return Failure(
        error_type=ErrorType.MEDIA,
        error_message=f"{status.phrase}.",
        stage=Stage.VALIDATION,
        retryable=False,
        error_code=status.name.lower(),
    )


_STATUS: Mapping[type[WorkerError], int] = {
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    JobUnknown: HTTPStatus.NOT_FOUND,
    JobIdTaken: HTTPStatus.CONFLICT,
    ResultExpired: HTTPStatus.GONE,
    WorkerBusy: HTTPStatus.SERVICE_UNAVAILABLE,
    WorkerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
