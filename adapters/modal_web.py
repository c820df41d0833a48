"""Modal's web app: hand a job over, ask how it stands, take it back; without a GPU, or a state.

A job's id is that of its call; Modal keeps the result for a week. Who may ask, its proxy says. A
failed job is answered with 200, like any result; other statuses are about the asking.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import modal
from fastapi import FastAPI, Request, Response
from grpclib.exceptions import StreamTerminatedError
from modal.exception import (
    ExecutionError,
    FunctionTimeoutError,
    InternalFailure,
    NotFoundError,
    OutputExpiredError,
    RemoteError,
)
from starlette.exceptions import HTTPException

from adapters.http.body import read_job
from adapters.http.refusals import (
    JobUnknown,
    ResultExpired,
    WorkerUnavailable,
    headers_of,
    refusal,
)
from handler import Cancelled, Failure, Job, WorkerError
from handler.errors import DeadlineExceeded, ProcessingError
from handler.job import job_id_of

#: What Modal calls a call.
CALL_ID = re.compile(r"fc-[A-Za-z0-9]{1,64}")
#: What the SDK raises if Modal cannot be reached; nothing follows from it for the job.
UNREACHED = (modal.Error, OSError, StreamTerminatedError)
#: A good moment to ask again, for whoever got no result yet.
RETRY_AFTER = {"Retry-After": "2"}


def web_app(handle: modal.Function[..., Any, Any]) -> FastAPI:
    """Return the app; ``handle`` runs a job and returns its result."""
    pages = _Pages(handle)
    app = FastAPI(title="musetalk-worker", openapi_url=None)
    app.add_api_route("/jobs", pages.submit, methods=["POST"])
    app.add_api_route("/jobs/{call_id}", pages.look, methods=["GET"])
    app.add_api_route("/jobs/{call_id}", pages.cancel, methods=["DELETE"])
    for fault in (HTTPException, WorkerError, *UNREACHED, Exception):
        app.add_exception_handler(fault, pages.refuse)
    return app


class _Pages:
    """What is answered to each request."""

    def __init__(self, handle: modal.Function[..., Any, Any]) -> None:
        self._handle = handle

    async def submit(self, request: Request) -> Response:
        """Start a job; one that could never succeed is refused before a GPU is woken for it."""
        job = await read_job(request)
        request.state.job_id = job_id_of(job)
        Job.parse(job)
        call = await self._handle.spawn.aio(job)
        place = {"Location": f"/jobs/{call.object_id}"}
        return _going_on(call.object_id, place)

    async def look(self, call_id: str) -> Response:
        """Return the result once there is one, be it a success or a failure."""
        result = await _result(_call(call_id))
        return _going_on(call_id) if result is None else _json(result)

    async def cancel(self, call_id: str) -> Response:
        """Take a job back, unless it has ended; answer as for looking at it."""
        try:
            await _call(call_id).cancel.aio()
        except NotFoundError as error:
            raise _unknown(call_id) from error
        return await self.look(call_id)

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Answer what cannot be answered otherwise, in the one failure shape."""
        if isinstance(error, UNREACHED):
            error = WorkerUnavailable(f"Modal does not answer: {type(error).__name__}.")
        failure, status = refusal(error, getattr(request.state, "job_id", None))
        return _json(failure.to_json(), status, headers_of(error))


def _call(call_id: str) -> modal.FunctionCall[Any]:
    if not CALL_ID.fullmatch(call_id):
        raise _unknown(call_id)
    return modal.FunctionCall.from_id(call_id)


async def _result(call: modal.FunctionCall[Any]) -> Any:
    """Return what a call came to, or None while it goes on.

    Raises one of :data:`UNREACHED` where it is the asking that failed, not the job.
    """
    try:
        return await call.get.aio(timeout=0)
    except TimeoutError:
        return None
    except OutputExpiredError as error:
        raise ResultExpired("This job's result is no longer kept.") from error
    except NotFoundError as error:
        raise _unknown(call.object_id) from error
    except (Exception, SystemExit) as error:
        # What a container raised is raised here again, and must not end this process, too.
        fault = _fault(error)
        if fault is None:
            raise
        return Failure.of(fault).to_json()


def _fault(error: BaseException) -> WorkerError | None:
    """Return what became of a job that has no result, or None if that cannot be told."""
    match error:
        case RemoteError():
            return Cancelled("The caller took the job back.")
        case FunctionTimeoutError():
            return DeadlineExceeded("The job took longer than Modal lets any job take.")
        case InternalFailure():
            return ProcessingError("Modal lost the job.")
        case _ if isinstance(error, UNREACHED) and not isinstance(error, ExecutionError):
            return None
    return ProcessingError(f"The worker failed: {type(error).__name__}: {error}")


def _unknown(call_id: str) -> JobUnknown:
    return JobUnknown(f"There is no job {call_id}.")


def _going_on(call_id: str, headers: Mapping[str, str] | None = None) -> Response:
    state = {"id": call_id, "status": "running"}
    return _json(state, HTTPStatus.ACCEPTED, {**RETRY_AFTER, **(headers or {})})


def _json(
    data: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer in ASCII: what a caller's text may hold, UTF-8 cannot always."""
    content = json.dumps(data, allow_nan=False)
    return Response(content, status, headers, media_type="application/json")
