"""The calls that the Modal on loopback is asked to run, and what comes of them."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

Result = api_pb2.GenericResult
TERMINATED = Result(status=Result.GENERIC_STATUS_TERMINATED)


@dataclass
class Run:
    """One call of a function: what is asked, and what came of it."""

    id: str
    function_id: str
    input: api_pb2.FunctionInput
    invocation_type: int = api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC
    outcome: api_pb2.FunctionGetOutputsItem | None = None
    cancelled: bool = False
    #: What its container is sent, and what it sends, while it runs.
    chunks_in: list[api_pb2.DataChunk] = field(default_factory=list)
    chunks_out: list[api_pb2.DataChunk] = field(default_factory=list)


class Calls:
    """Keeps all runs; whoever waits for one is told of every change of any."""

    def __init__(self, hire: Callable[[str], None]) -> None:
        """Call ``hire`` to see to it that a function has a container."""
        self.runs: dict[str, Run] = {}
        self._waiting: dict[str, deque[Run]] = {}
        self._hire = hire
        self._numbers = itertools.count(1)
        self._changed = asyncio.Condition()

    async def start(self, function_id: str, given: api_pb2.FunctionInput, kind: int = 0) -> Run:
        """Have a function run."""
        run = Run(f"fc-{next(self._numbers)}", function_id, given, kind)
        self.runs[run.id] = run
        await self.queue(run)
        return run

    def ended(self, result: Result) -> str:
        """Keep a run that came to this, without a container; return its id."""
        run = Run(f"fc-{next(self._numbers)}", "", api_pb2.FunctionInput())
        run.outcome = api_pb2.FunctionGetOutputsItem(
            result=result, data_format=api_pb2.DATA_FORMAT_PICKLE, input_id=run.id
        )
        self.runs[run.id] = run
        return run.id

    async def queue(self, run: Run) -> None:
        """Give a run to the next container of its function that asks."""
        self.waiting(run.function_id).append(run)
        self._hire(run.function_id)
        await self.tell()

    def waiting(self, function_id: str) -> deque[Run]:
        """Return the runs of a function that no container has."""
        return self._waiting.setdefault(function_id, deque())

    async def finish(self, run: Run, result: Result, data_format: int = 0) -> None:
        """Keep what came of a run; the first word counts."""
        if run.outcome is None:
            run.outcome = api_pb2.FunctionGetOutputsItem(
                result=result, data_format=data_format, input_id=run.id
            )
        await self.tell()

    async def until(self, happened: Callable[[], object], seconds: float = 3600) -> None:
        """Wait until something is so, or until time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(happened)

    async def tell(self) -> None:
        """Have all who wait look again."""
        async with self._changed:
            self._changed.notify_all()

    async def stream(self, chunks: list[api_pb2.DataChunk]) -> AsyncIterator[api_pb2.DataChunk]:
        """Yield chunks as they come; whoever has enough leaves."""
        for sent in itertools.count():
            await self.until(lambda sent=sent: len(chunks) > sent)
            yield chunks[sent]

    # -- procedure calls, by their names

    async def function_map(self, request: Any) -> Any:
        (item,) = request.pipelined_inputs
        run = await self.start(
            request.function_id, item.input, request.function_call_invocation_type
        )
        accepted = api_pb2.FunctionPutInputsResponseItem(input_id=run.id, input_jwt=run.id)
        return api_pb2.FunctionMapResponse(
            function_call_id=run.id, function_call_jwt=run.id, pipelined_inputs=[accepted]
        )

    async def function_get_outputs(self, request: Any) -> Any:
        run = self.runs.get(request.function_call_id)
        if run is None:
            # As of a call whose result is no longer kept.
            return api_pb2.FunctionGetOutputsResponse(num_unfinished_inputs=0)
        await self.until(lambda: run.outcome, request.timeout)
        outputs = [run.outcome] if run.outcome else []
        return api_pb2.FunctionGetOutputsResponse(
            outputs=outputs, last_entry_id="1-0", num_unfinished_inputs=1 - len(outputs)
        )

    async def function_call_cancel(self, request: Any) -> Any:
        run = self.runs.get(request.function_call_id)
        if run is None:
            raise GRPCError(Status.NOT_FOUND, request.function_call_id)
        if run in self.waiting(run.function_id):
            self.waiting(run.function_id).remove(run)
            await self.finish(run, TERMINATED)
        run.cancelled = True
        await self.tell()
        return Empty()

    def function_call_get_data_in(self, request: Any) -> AsyncIterator[Any]:
        return self.stream(self.runs[request.function_call_id].chunks_in)

    def function_call_get_data_out(self, request: Any) -> AsyncIterator[Any]:
        return self.stream(self.runs[request.function_call_id].chunks_out)

    async def function_call_put_data_out(self, request: Any) -> Any:
        self.runs[request.function_call_id].chunks_out.extend(request.data_chunks)
        await self.tell()
        return Empty()
