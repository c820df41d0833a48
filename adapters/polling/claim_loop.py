"""Claim jobs and do them, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from adapters.health import Health
from adapters.log import Log, facts_of, log_result
from adapters.orchestrator import Backoff, Orchestrator, OrchestratorError
from adapters.polling.courier import Courier
from adapters.polling.lease import Lease
from adapters.polling.queues import ERROR_CHARACTERS, Claimed, Queue, Standing
from handler.core import handle
from handler.errors import WorkerBroken
from handler.ports import Runtime
from handler.result import Failure, Result

#: Why a job comes back that had no time left to be done.
STOPPED = "The worker was stopped before the job was done: give it to another."


class ClaimLoop:
    """Asks the queues in their order, and does the first job that one gives."""

    def __init__(
        self,
        client: Orchestrator,
        queues: Sequence[Queue],
        runtime: Runtime,
        courier: Courier,
        health: Health,
        stopping: threading.Event,
        log: Log,
    ) -> None:
        """Take no other job once ``stopping`` is set, or under another door the GPU has failed."""
        self._client = client
        self._queues = queues
        self._runtime = runtime
        self._courier = courier
        self._health = health
        self._stopping = stopping
        self._log = log
        self._lease: Lease | None = None
        self._last_error: str | None = None
        self._failures = 0
        self._interval_seconds = min(queue.interval_seconds for queue in queues)
        self._backoff = Backoff(first_seconds=self._interval_seconds)

    @property
    def standing(self) -> Standing:
        """Return what a heartbeat should say."""
        lease = self._lease
        return Standing(lease.claimed.job_id if lease else None, self._last_error)

    def run(self) -> None:
        """Work until told to stop; raise :class:`WorkerBroken` once the job in hand is reported."""
        while not self._stopping.is_set():
            self._health.check()
            self._stopping.wait(self._turn())

    def give_back(self) -> None:
        """Have the job in hand end at its next tick, to be done by another worker."""
        if lease := self._lease:
            lease.give_back(STOPPED)

    def _turn(self) -> float:
        """Do the first job that a queue gives; return how many seconds to pause."""
        failed = False
        for queue in self._queues:
            try:
                claimed = queue.claimed(self._client.post(queue.claim()))
            except OrchestratorError as error:
                self._log.warning("claim failed", queue=queue.name, **error.facts)
                failed = True
                continue
            if claimed is not None:
                self._failures = 0
                # After a failure a pause: the same job may come back again and again.
                return 0.0 if self._do(queue, claimed) else self._interval_seconds
        self._failures = self._failures + 1 if failed else 0
        return self._backoff.seconds(self._failures) if failed else self._interval_seconds

    def _do(self, queue: Queue, claimed: Claimed) -> bool:
        """Do a job and have its end reported; return whether there is a video."""
        self._lease = lease = Lease(queue, claimed, self._courier.wake)
        # Claimed just before the worker was told to stop.
        if self._stopping.is_set():
            self.give_back()
        try:
            with self._courier.following(lease):
                result = handle(claimed.raw, self._runtime, lease)
            self._report(lease, result)
        except WorkerBroken as broken:
            self._report(lease, broken.failure)
            raise
        finally:
            self._lease = None
        return not isinstance(result, Failure)

    def _report(self, lease: Lease, result: Result) -> None:
        error = result.error_message if isinstance(result, Failure) else None
        self._last_error = error and error[:ERROR_CHARACTERS]
        log = self._log.bind(**lease.claimed.delivery)
        if lease.lost:
            log.warning("job is not ours any more", **facts_of(result))
            return
        self._courier.deliver(lease.ended(result))
        log_result(log, result)
