"""What the HTTP door answers: one job a request, or a queue to ask (docs/contract.md section 3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from adapters import __version__
from adapters.health import Health
from adapters.http.access import Guard
from adapters.http.body import read_job
from adapters.http.jobs import JobQueue, Room
from adapters.http.refusals import headers_of, refusal
from adapters.http.tally import Tally
from adapters.http.ticket import Ticket
from adapters.log import Log
from handler import Failure, Job, Result, Success, WorkerError
from handler.job import job_id_of
from handler.result import CONTRACT_VERSION

#: The status of a request whose caller did not wait for the answer.
CLIENT_CLOSED_REQUEST = 499

#: For the OpenAPI document: the body that jobs come in, and every way to fail.
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Job"}}},
    }
}
_Answers = dict[int | str, dict[str, Any]]
_REFUSED: _Answers = {code: {"model": Failure} for code in (401, 409, 422, 503)}
_UNKNOWN: _Answers = {code: {"model": Failure} for code in (401, 404)}
_ENDED: _Answers = {
    200: {"model": Success},
    **{code: {"model": Failure} for code in (422, CLIENT_CLOSED_REQUEST, 500)},
}
_GOING_ON: _Answers = {202: {"description": "The job has not ended: how far it is."}}
_HEALTH: _Answers = {503: {"description": "The worker takes no jobs."}}
_NUMBERS: _Answers = {200: {"content": {"text/plain": {}}}, 401: {"model": Failure}}
_EVENTS: _Answers = {200: {"content": {"text/event-stream": {}}}}


class Door:
    """Answer requests: those about the worker at any time, those about jobs once it is open."""

    def __init__(self, log: Log, health: Health | None = None, room: Room | None = None) -> None:
        """Be closed until ``queue.open(runtime)``; ``health`` may be shared with another door."""
        self.log = log
        self.health = health or Health()
        self.tally = Tally()
        self.queue = JobQueue(self.health, self.tally, log, room)

    async def check(self) -> Response:
        """Say whether the worker takes jobs."""
        return _json(self.health.short(), self.health.http_status)

    async def describe(self) -> Response:
        """Say what the worker is, exactly, and what it is doing."""
        known = {"version": __version__, "contract": CONTRACT_VERSION}
        facts = {**known, **self.health.full(), "jobs": self.queue.length}
        return _json(facts, self.health.http_status)

    async def count(self) -> Response:
        """Give Prometheus its numbers."""
        return Response(self.tally.page(), media_type=self.tally.content_type)

    async def generate(self, request: Request) -> Response:
        """Run one job and answer with its result; a caller that hangs up takes the job back."""
        ticket = await self._take(request)
        hung_up = asyncio.create_task(_until_hung_up(request))
        try:
            ended: set[asyncio.Future[Any]] = {ticket.result, hung_up}
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hung_up.cancel()
            if not ticket.result.done():
                self.queue.leave(ticket)
        if not ticket.result.done():
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return _answer(ticket.result.result())

    async def submit(self, request: Request) -> Response:
        """Take a job in, to be asked about later."""
        ticket = await self._take(request)
        where = {"Location": f"/jobs/{ticket.id}"}
        return _json(ticket.state(), HTTPStatus.ACCEPTED, where)

    async def look(self, job_id: str) -> Response:
        """Say how far a job is, or what came of it."""
        return _whereabouts(self.queue.find(job_id))

    async def follow(self, job_id: str) -> Response:
        """Tell how far a job is, as it goes on, and at last what came of it."""
        events = _events(self.queue.find(job_id))
        # Or nginx collects events before it passes them on.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def cancel(self, job_id: str) -> Response:
        """Take a job back; answer as for looking at it."""
        ticket = self.queue.find(job_id)
        self.queue.cancel(ticket, "The caller took the job back.")
        return _whereabouts(ticket)

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Answer a request that was not even begun."""
        runtime = self.queue.runtime
        job_id = getattr(request.state, "job_id", None)
        failure, status = refusal(error, job_id, runtime.worker if runtime else None)
        return self._refused(request, failure, status, headers_of(error))

    async def _take(self, request: Request) -> Ticket:
        self.queue.check()
        raw = await read_job(request)
        request.state.job_id = job_id_of(raw)
        return self.queue.take(raw)

    def _refused(
        self, request: Request, failure: Failure, status: int, headers: Mapping[str, str] | None
    ) -> Response:
        self.tally.refused(failure.error_code)
        facts = {
            "musetalk_job_id": failure.musetalk_job_id,
            "method": request.method,
            "http_status": status,
            "error_code": failure.error_code,
            "error_message": failure.error_message,
        }
        if failure.stack_trace:
            self.log.error("refused", **facts, stack_trace=failure.stack_trace)
        else:
            self.log.info("refused", **facts)
        return _json(failure.to_json(), status, headers)


class _App(FastAPI):
    """Describe jobs, which are not read by the framework, in the OpenAPI document too."""

    async def describe(self) -> Response:
        """Return the document to whoever asks for it."""
        return _json(self.openapi())

    async def show(self) -> Response:
        """Return a page that shows it to people."""
        return get_swagger_ui_html(openapi_url="/openapi.json", title=self.title)

    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        document = super().openapi()
        schemas = document["components"]["schemas"]
        if "Job" not in schemas:
            job = Job.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= job.pop("$defs") | {"Job": job}
        return document


def build_app(door: Door, token: SecretStr | None = None) -> FastAPI:
    """Put the pages of a door together; all but the two of health ask for the token.

    Without a token they answer only what is asked from this machine.
    """
    app = _App(title="musetalk-worker", version=__version__, openapi_url=None)
    for fault in (HTTPException, WorkerError, Exception):
        app.add_exception_handler(fault, door.refuse)
    # Probes cannot be told a token, and some ask for nothing but the status.
    for path, answer in (("/hc", door.check), ("/health", door.describe)):
        app.add_api_route(path, answer, responses=_HEALTH)
        app.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False)
    described = [] if token is None else [Depends(HTTPBearer(auto_error=False))]
    pages = APIRouter(dependencies=[*described, Depends(Guard(token).check)])
    pages.add_api_route("/openapi.json", app.describe, include_in_schema=False)
    pages.add_api_route("/docs", app.show, include_in_schema=False)
    pages.add_api_route("/metrics", door.count, responses=_NUMBERS)
    pages.add_api_route(
        "/generate",
        door.generate,
        methods=["POST"],
        responses=_REFUSED | _ENDED,
        openapi_extra=_BODY,
    )
    pages.add_api_route(
        "/jobs",
        door.submit,
        methods=["POST"],
        status_code=HTTPStatus.ACCEPTED,
        responses=_REFUSED | _GOING_ON,
        openapi_extra=_BODY,
    )
    one = _UNKNOWN | _ENDED | _GOING_ON
    pages.add_api_route("/jobs/{job_id}", door.look, responses=one)
    pages.add_api_route("/jobs/{job_id}", door.cancel, methods=["DELETE"], responses=one)
    pages.add_api_route("/jobs/{job_id}/events", door.follow, responses=_UNKNOWN | _EVENTS)
    app.include_router(pages)
    return app


async def _until_hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(ticket: Ticket) -> AsyncIterator[str]:
    async for state in ticket.follow():
        yield _event("progress", state)
    yield _event("result", ticket.result.result().to_json())


def _event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n"


def _whereabouts(ticket: Ticket) -> Response:
    if ticket.result.done():
        return _answer(ticket.result.result())
    return _json(ticket.state(), HTTPStatus.ACCEPTED)


def _answer(result: Result) -> Response:
    status = HTTPStatus.OK if isinstance(result, Success) else result.http_status
    return _json(result.to_json(), status)


def _json(
    data: Mapping[str, Any], status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    content = json.dumps(data, allow_nan=False)
    return Response(content, status, headers, media_type="application/json")
