"""A job at the HTTP door, as those see it who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from adapters.http.refusals import WorkerUnavailable
from handler import Job, Phase, Progress, Result, Success
from handler.cancellation import Cancellation

#: Progress is told at most this often; what is overtaken meanwhile is left out.
EVENT_SECONDS = 0.25
#: And at least this often, for proxies take a silent connection for a dead one.
SILENCE_SECONDS = 15.0


class Ticket:
    """One job that was let in: how far it is, and in the end what came of it."""

    def __init__(self, job: Job, raw: Mapping[str, Any], result: asyncio.Future[Result]) -> None:
        """Stand for ``job``, which came as ``raw`` and will end as ``result``."""
        self.job = job
        self.raw = raw
        self.result = result
        self.cancellation = Cancellation(self._note)
        self.waiting = True
        #: Who would miss the job; it is taken back when nobody does.
        self.callers = 0
        self.ended_at = 0.0
        self._progress = Progress(Phase.DOWNLOADING, 0.0)
        self._eviction: str | None = None

    @property
    def id(self) -> str:
        """Return the job's id."""
        return self.job.musetalk_job_id

    def state(self) -> dict[str, Any]:
        """Say how far the job is."""
        queued = {"status": "queued"} if self.waiting else {}
        return {"id": self.id, **self._now().to_json(), **queued}

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Yield how far the job is, whenever that has changed, until it has ended."""
        now = asyncio.get_running_loop().time
        told, told_at = None, 0.0
        while not self.result.done():
            state = self.state()
            if state != told or now() - told_at > SILENCE_SECONDS:
                yield state
                told, told_at = state, now()
            await asyncio.wait({self.result}, timeout=EVENT_SECONDS)
        yield self.state()

    def evict(self, reason: str) -> None:
        """Have the job fail at its next tick in a way that another worker can make good."""
        self._eviction = reason

    def report(self, progress: Progress) -> None:
        """Take progress down; raise to stop the job if it is no longer wanted, or not here."""
        if self._eviction is not None:
            raise WorkerUnavailable(self._eviction)
        self.cancellation(progress)

    def _note(self, progress: Progress) -> None:
        self._progress = progress

    def _now(self) -> Progress:
        if not self.result.done():
            return self._progress
        # A job that was stopped could not tell of its end itself.
        if isinstance(self.result.result(), Success):
            return Progress(Phase.COMPLETED, 1.0)
        return Progress(Phase.FAILED, self._progress.fraction)
