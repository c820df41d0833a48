"""How the worker ends: by a signal, with time for the job in hand, or because it is broken.

The main thread does nothing else, so that a signal is heard whatever a network or GPU is at.
"""

from __future__ import annotations

import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from types import FrameType
from typing import NoReturn, Protocol

from adapters.log import Log
from handler.errors import WorkerBroken

#: Exit codes: told to stop; the GPU failed, start another process.
STOPPED, BROKEN = 0, 75
#: How long a job may take to end when it is given back, and its report to be taken.
GIVE_BACK_SECONDS = 3.0
#: The system may give a signal to any thread, and Python heeds it in the main one: once that wakes.
WAKE_SECONDS = 0.5

#: What wakes the main thread: a signal, or how the worker has ended.
News = SimpleQueue[signal.Signals | BaseException | None]


class Stoppable(Protocol):
    """A worker that can be asked to come to an end."""

    @property
    def started(self) -> bool:
        """Return whether it may have a job in hand."""

    @property
    def job_id(self) -> str | None:
        """Return the id of the job that it has claimed."""

    def run(self) -> None:
        """Work until told to stop; raise :class:`WorkerBroken` if no further job can be done."""

    def stop(self) -> None:
        """Take no other job."""

    def give_back(self) -> None:
        """Do not finish the job in hand either."""


def oversee(worker: Stoppable, grace_seconds: float, log: Log) -> int:
    """Have a worker work, in a thread, until it ends or is told to; return the exit code.

    After SIGTERM or SIGINT the job in hand has ``grace_seconds`` to end by itself. A second signal
    ends the process at once. What the worker raises comes out, but for WorkerBroken: that is 75.
    """
    # A SimpleQueue, unlike an Event, may be used by a signal handler that interrupts its reader.
    news: News = SimpleQueue()
    with _signals(news):
        threading.Thread(target=_work, args=(worker, news), name="worker", daemon=True).start()
        end = _next(news)
        if isinstance(end, signal.Signals):
            log.info("stopping", signal=end.name, grace_seconds=grace_seconds)
            end = _drain(worker, news, grace_seconds, log)
    if isinstance(end, WorkerBroken):
        log.error("worker is broken", reason=str(end))
        _leave(BROKEN)
    if end is not None:
        raise end
    return STOPPED


def _drain(worker: Stoppable, news: News, grace_seconds: float, log: Log) -> BaseException | None:
    """Wait for the job in hand, then give it back; return how the worker has ended."""
    worker.stop()
    if not worker.started:
        _leave(STOPPED)
    try:
        return _end(news, grace_seconds)
    except queue.Empty:
        log.warning("giving the job back", musetalk_job_id=worker.job_id)
        worker.give_back()
    try:
        return _end(news, GIVE_BACK_SECONDS)
    except queue.Empty:
        # Whoever has the orchestrator's leases will notice that nobody holds this one.
        log.warning("leaving a job that does not end", musetalk_job_id=worker.job_id)
        _leave(STOPPED)


def _next(news: News, seconds: float = math.inf) -> signal.Signals | BaseException | None:
    """Wait for news; raise :class:`queue.Empty` if there are none for so many seconds."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > WAKE_SECONDS:
        with suppress(queue.Empty):
            return news.get(timeout=WAKE_SECONDS)
    return news.get(timeout=max(left, 0.0))


def _end(news: News, seconds: float) -> BaseException | None:
    end = _next(news, seconds)
    if isinstance(end, signal.Signals):
        _leave(128 + end)
    return end


def _work(worker: Stoppable, news: News) -> None:
    try:
        worker.run()
    except BaseException as error:  # noqa: BLE001 - the main thread raises it again
        news.put(error)
    else:
        news.put(None)


@contextmanager
def _signals(news: News) -> Iterator[None]:
    """Pass signals on, and put things back afterwards."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        news.put(signal.Signals(number))

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(code: int) -> NoReturn:
    """End the process without waiting for threads: one that hangs in a driver never ends."""
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)
