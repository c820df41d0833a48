"""Serve the HTTP door: from the first moment of the start to the last job."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

from adapters import cold_start
from adapters.config import Config
from adapters.http.access import open_listener, require_token, url_of
from adapters.http.app import Door, build_app
from adapters.http.connection import HurriedConnection
from adapters.http.jobs import settle_in_thread
from adapters.log import open_log
from handler import Runtime

#: What platforms send, and what Ctrl-C does.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: How long answers that are on their way may take when the last job has ended.
FAREWELL_SECONDS = 1
#: Exit codes of a worker that leaves something behind: its own start; a job that hangs.
START_LEFT, JOB_LEFT = 0, 1


def serve(config: Config, load: Callable[[], Runtime]) -> None:
    """Answer requests, ``/hc`` at once and jobs when ``load`` is done, until SIGTERM or SIGINT.

    Then running jobs are finished, those that take longer than ``DRAIN_SEC`` fail in a way that may
    be retried, and those that hang are left: the process exits with 1.
    Raises :class:`ConfigError` if the worker cannot start.
    """
    require_token(config)
    door = Door(open_log(worker_id=config.worker_id, provider=config.provider))
    with open_listener(config) as listener:
        server = _Server(build_app(door, config.worker_token))
        left = asyncio.run(_serve(door, server, listener, load, config))
    if left is not None:
        # Threads that go on would be waited for, or have the interpreter torn from under them.
        os._exit(left)


@contextmanager
def served_in_thread(app: FastAPI, listener: socket.socket) -> Iterator[asyncio.AbstractEventLoop]:
    """Serve an app beside whatever else the process does, and lend the loop that does so."""
    server = _Server(app)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        work = partial(runner.run, server.serve([listener]))
        thread = threading.Thread(target=work, name="http", daemon=True)
        thread.start()
        try:
            yield loop
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    """Leave signals to whoever serves: uvicorn would hang up before the jobs have ended."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=HurriedConnection,
                ws="none",
                lifespan="off",
                log_config=None,
                # What is worth a line, the door's own log has: without secrets, and as JSON.
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=FAREWELL_SECONDS,
            )
        )

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield


async def _serve(
    door: Door,
    server: _Server,
    listener: socket.socket,
    load: Callable[[], Runtime],
    config: Config,
) -> int | None:
    """Return the code to exit with at once; None if nothing is left behind."""
    stop = asyncio.create_task(_told_to_stop().wait())
    serving = asyncio.create_task(server.serve([listener]))
    door.log.info("listening", url=url_of(listener))
    try:
        loading: asyncio.Future[Runtime] = asyncio.get_running_loop().create_future()
        settle_in_thread(loading, partial(cold_start.start, load, door.log))
        first: set[asyncio.Future[Any]] = {loading, stop}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            return START_LEFT
        runtime = loading.result()
        door.queue.open(runtime)
        door.log.info("ready", **cold_start.facts(config, runtime))
        await stop
        door.log.info("stopping")
        return None if await door.queue.drain(config.drain_sec) else JOB_LEFT
    finally:
        server.should_exit = True
        await serving


def _told_to_stop() -> asyncio.Event:
    """Return what the first signal to stop sets; a second one ends the process at once."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def tell(number: signal.Signals) -> None:
        if told.is_set():
            # Not by the signal itself: the first process of a container survives that.
            os._exit(128 + number)
        told.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, tell, number)
    return told
