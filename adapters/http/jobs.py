"""The jobs at the HTTP door: some run, some wait, and what came of the last is remembered."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from adapters.health import Health, HealthStatus
from adapters.http.refusals import (
    JobIdTaken,
    JobUnknown,
    WorkerBusy,
    WorkerUnavailable,
)
from adapters.http.tally import Tally
from adapters.http.ticket import Ticket
from adapters.log import Log, log_result
from handler import Failure, Job, Result, Runtime, WorkerBroken, handle
from handler.job import with_job_id

#: How long a job that was told to stop may take to do so: more than an engine has to let go of it.
STOP_SECONDS = 2.5
#: Why a job fails that had no time left to be done.
STOPPED = "The worker was stopped before the job was done."

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Room:
    """Say how many jobs may run and wait, and how many are remembered, for how long."""

    #: The engine does one at a time; the other's transfers go on meanwhile.
    running: int = 2
    waiting: int = 8
    remembered: int = 256
    remembered_seconds: float = 3600


class JobQueue:
    """Run jobs, few at a time and in the order they came; to be used in one event loop."""

    def __init__(self, health: Health, tally: Tally, log: Log, room: Room | None = None) -> None:
        """Take no job before :meth:`open`, and none once ``health`` is gone."""
        self._health, self._tally, self._log = health, tally, log
        self._room = room or Room()
        self._runtime: Runtime | None = None
        self._tickets: dict[str, Ticket] = {}
        self._waiting: deque[Ticket] = deque()
        self._running: set[Ticket] = set()
        self._ended: deque[Ticket] = deque()
        tally.ready.set_function(lambda: health.status is HealthStatus.OK)
        tally.running.set_function(lambda: len(self._running))
        tally.waiting.set_function(lambda: len(self._waiting))

    @property
    def runtime(self) -> Runtime | None:
        """Return what runs the jobs, once it is there."""
        return self._runtime

    @property
    def length(self) -> dict[str, int]:
        """Return how many jobs run and wait."""
        return {"running": len(self._running), "waiting": len(self._waiting)}

    def open(self, runtime: Runtime) -> None:
        """Take jobs from now on, in any thread."""
        self._runtime = runtime
        self._health.ready(gpu_class=runtime.gpu_class, **runtime.worker.model_dump(mode="json"))

    def check(self) -> None:
        """Raise :class:`WorkerUnavailable` if no job can be taken, whatever it be."""
        if self._health.status is HealthStatus.STARTING:
            raise WorkerUnavailable("The worker is still starting.")
        if self._health.status is HealthStatus.UNHEALTHY:
            raise WorkerUnavailable("The worker takes no more jobs; see /health.")

    def take(self, raw: object) -> Ticket:
        """Let a job in; one that is here already under the same id is joined, not run twice.

        Raises :class:`InvalidJob`, :class:`JobIdTaken`, :class:`WorkerBusy` or
        :class:`WorkerUnavailable`.
        """
        self.check()
        raw = with_job_id(raw, uuid.uuid4().hex)
        job = Job.parse(raw)
        ticket = self._joined(job) or self._enter(job, raw)
        ticket.callers += 1
        return ticket

    def find(self, job_id: str) -> Ticket:
        """Return a job that has not been forgotten; raise :class:`JobUnknown`."""
        self._forget()
        if job_id not in self._tickets:
            raise JobUnknown(
                f"No such job here; a job is remembered for {self._room.remembered_seconds:g} s"
                " after its end, by the worker that ran it."
            )
        return self._tickets[job_id]

    def leave(self, ticket: Ticket) -> None:
        """Tell that a caller has gone; the last one takes the job along."""
        ticket.callers -= 1
        if ticket.callers == 0:
            self.cancel(ticket, "The caller hung up.")

    def cancel(self, ticket: Ticket, reason: str) -> None:
        """Take a job back; one that has ended stays as it is."""
        ticket.cancellation.request(reason)
        self._hurry(ticket)

    async def drain(self, seconds: float) -> bool:
        """Take no more jobs and wait for those that run; return whether all have ended.

        Those that wait, or run for longer than ``seconds``, fail in a way that may be retried, even
        if they do not end: what becomes of them nobody will see.
        """
        self._health.unhealthy("The worker is stopping.")
        self._evict_waiting()
        await self._quiet(seconds)
        for ticket in self._running:
            ticket.evict(STOPPED)
        await self._quiet(STOP_SECONDS)
        left = tuple(self._running)
        for ticket in left:
            ticket.result.set_result(self._failure(ticket, WorkerUnavailable(STOPPED)))
        return not left

    def _joined(self, job: Job) -> Ticket | None:
        ticket = self._tickets.get(job.musetalk_job_id)
        if ticket is None or ticket.result.done():
            return None
        if ticket.job != job:
            raise JobIdTaken(
                "A different job of this id has not ended yet.", field="musetalk_job_id"
            )
        if ticket.cancellation.requested:
            raise WorkerBusy("This job was taken back and is still being stopped; try again.")
        return ticket

    def _enter(self, job: Job, raw: Any) -> Ticket:
        if len(self._waiting) >= self._room.waiting:
            raise WorkerBusy(f"{len(self._waiting)} jobs wait already; try again later.")
        self._forget()
        ticket = Ticket(job, raw, asyncio.get_running_loop().create_future())
        ticket.result.add_done_callback(lambda _: self._end(ticket))
        self._tickets[ticket.id] = ticket
        self._waiting.append(ticket)
        self._advance()
        return ticket

    def _advance(self) -> None:
        while self._waiting and len(self._running) < self._room.running:
            self._start(self._waiting.popleft())

    def _hurry(self, ticket: Ticket) -> None:
        """Start a job that will end at its first tick, and so needs nobody's place."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            self._start(ticket)

    def _start(self, ticket: Ticket) -> None:
        ticket.waiting = False
        self._running.add(ticket)
        settle_in_thread(ticket.result, lambda: self._handle(ticket))

    def _handle(self, ticket: Ticket) -> Result:
        assert self._runtime is not None
        try:
            return handle(ticket.raw, self._runtime, ticket.report)
        except WorkerBroken as broken:
            self._health.unhealthy(str(broken))
            return broken.failure
        except BaseException as error:  # noqa: BLE001 - what would end the thread ends the job
            return self._failure(ticket, error)

    def _failure(self, ticket: Ticket, error: BaseException) -> Failure:
        worker = self._runtime.worker if self._runtime else None
        metadata = ticket.job.metadata
        return Failure.of(error, musetalk_job_id=ticket.id, worker=worker, metadata=metadata)

    def _end(self, ticket: Ticket) -> None:
        self._running.discard(ticket)
        self._ended.append(ticket)
        ticket.ended_at = asyncio.get_running_loop().time()
        if self._health.status is HealthStatus.UNHEALTHY:
            self._evict_waiting()
        self._advance()
        result = ticket.result.result()
        log_result(self._log, result)
        self._tally.ended(result)

    def _evict_waiting(self) -> None:
        for ticket in tuple(self._waiting):
            ticket.evict("The worker can take no more jobs.")
            self._hurry(ticket)

    async def _quiet(self, seconds: float) -> None:
        if self._running:
            await asyncio.wait({ticket.result for ticket in self._running}, timeout=seconds)

    def _forget(self) -> None:
        longest_ago = asyncio.get_running_loop().time() - self._room.remembered_seconds
        while self._ended and (
            len(self._ended) > self._room.remembered or self._ended[0].ended_at < longest_ago
        ):
            old = self._ended.popleft()
            # Its id may belong to a later job by now.
            if self._tickets.get(old.id) is old:
                del self._tickets[old.id]


def settle_in_thread(future: asyncio.Future[Value], work: Callable[[], Value]) -> None:
    """Have a thread do the work and settle the future; nobody waits for it when the process ends.

    The default executor's threads are waited for, and one that hangs would keep the worker alive.
    """
    loop = future.get_loop()

    def settle() -> None:
        settled: Any
        tell: Callable[[Any], None]
        try:
            settled, tell = work(), future.set_result
        except BaseException as error:  # noqa: BLE001 - whatever it is, who waits must see it
            settled, tell = error, future.set_exception

        def told() -> None:
            # Else nobody has waited any longer.
            if not future.done():
                tell(settled)

        # The loop is closed if the worker has stopped meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(told)

    threading.Thread(target=settle, daemon=True).start()
