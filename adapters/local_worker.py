"""A GPU of one's own: the poll loop, and beside it the HTTP door, on one engine.

Health checks ask the door's ``/hc``; Salad's queue worker, in the same container, posts jobs to it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from adapters.config import Config, ConfigError
from adapters.health import Health
from adapters.http.access import open_listener, url_of
from adapters.http.app import Door, build_app
from adapters.http_server import served_in_thread
from adapters.log import open_log
from adapters.poll_loop import Pace, PollWorker
from adapters.polling.overseer import Stoppable, oversee
from handler.ports import Runtime


def main(config: Config, load: Callable[[], Runtime], pace: Pace | None = None) -> int:
    """Work until told to stop; return the exit code, 75 if the GPU failed.

    ``load`` is the cold start: until it is over, ``/hc`` says so and no job is taken. Without
    ``WORKER_TOKEN``, jobs are taken over HTTP from this machine only, whatever ``HOST`` is.

    Raises :class:`ConfigError` if the configuration cannot work, with what to do about it.
    """
    log, health = open_log(worker_id=config.worker_id, provider=config.provider), Health()
    door = Door(log, health)

    def open_doors() -> Runtime:
        runtime = load()
        door.queue.open(runtime)
        # What is claimed counts beside what is posted.
        return replace(runtime, observe=door.tally.observing(runtime.observe))

    poll = PollWorker(config, open_doors, log, health, pace or Pace())
    running = door.tally.running
    running.set_function(lambda: door.queue.length["running"] + (poll.job_id is not None))
    worker: Stoppable = poll
    try:
        listener = open_listener(config)
    except ConfigError as error:
        # Two workers on one host's network: the other's port is no reason not to work.
        log.warning("no http", reason=str(error))
    else:
        log.info("listening", url=url_of(listener))
        worker = LocalWorker(poll, door, listener, config)
    return oversee(worker, config.drain_sec, log)


class LocalWorker:
    """Works for the orchestrator and for whoever posts jobs, and brings both to one end."""

    def __init__(
        self, poll: PollWorker, door: Door, listener: socket.socket, config: Config
    ) -> None:
        self._poll = poll
        self._door = door
        self._listener = listener
        self._config = config
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drained: Future[bool] | None = None

    @property
    def started(self) -> bool:
        """Return whether there may be a job in hand: one may be posted before any is claimed."""
        return self._door.queue.runtime is not None

    @property
    def job_id(self) -> str | None:
        """Return the id of the orchestrator's job in hand; what is posted is answered anyway."""
        return self._poll.job_id

    def run(self) -> None:
        """Work until told to stop; raise :class:`WorkerBroken` once all jobs are answered."""
        app = build_app(self._door, self._config.worker_token)
        with self._listener, served_in_thread(app, self._listener) as self._loop:
            try:
                self._poll.run()
            finally:
                self._drain(self._loop).result()

    def stop(self) -> None:
        """Take no other job; those in hand have ``DRAIN_SEC`` to end."""
        self._poll.stop()
        if self._loop:
            self._drain(self._loop)

    def give_back(self) -> None:
        """Do not finish the orchestrator's job either; what came over HTTP has been told so."""
        self._poll.give_back()

    def _drain(self, loop: asyncio.AbstractEventLoop) -> Future[bool]:
        if self._drained is None:
            drain = self._door.queue.drain(self._config.drain_sec)
            self._drained = asyncio.run_coroutine_threadsafe(drain, loop)
        return self._drained
