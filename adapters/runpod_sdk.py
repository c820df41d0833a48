"""What is used of RunPod's SDK, made to start quickly, to be discreet, and to have patience."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sized
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from adapters.config import ConfigError

#: Levels at which the SDK does not print what jobs return.
DISCREET_LEVELS = frozenset({"INFO", "WARN", "ERROR", "NOTSET"})

#: RunPod is asked for jobs again after this at the soonest, if it had none.
ASKING_SECONDS = 1.0

#: A job as RunPod hands it out: ``id``, ``input`` and more.
RunpodJob = dict[str, Any]
#: Ask RunPod for so many jobs; it answers when it has some, or after a while with None.
Ask = Callable[[Any, int], Awaitable[list[RunpodJob] | None]]


@dataclass(frozen=True, slots=True)
class Sdk:
    """Hold what is used of RunPod's SDK, of which its manual knows a half."""

    start: Callable[[dict[str, Any]], None]
    register_fitness_check: Callable[[Callable[[], None]], object]
    open_session: Callable[[], AbstractAsyncContextManager[Any]]
    send: Callable[[Any, dict[str, Any], RunpodJob], Awaitable[None]]
    jobs_in_hand: Sized


def import_sdk() -> Sdk:
    """Import the SDK, which reads the environment as it is imported.

    Raises :class:`ConfigError` if it is not installed, or this is no worker of RunPod's.
    """
    if not os.environ.get("RUNPOD_WEBHOOK_GET_JOB"):
        raise ConfigError(
            "RUNPOD_WEBHOOK_GET_JOB is not set, as RunPod does in its serverless workers; to run a"
            " job elsewhere, use `musetalk-worker run` or `musetalk-worker serve`."
        )
    level = os.environ.get("RUNPOD_LOG_LEVEL", "").upper()
    os.environ["RUNPOD_LOG_LEVEL"] = level if level in DISCREET_LEVELS else "INFO"
    try:
        with _without_cpuinfo():
            from runpod import serverless
            from runpod.http_client import AsyncClientSession
            from runpod.serverless.modules import rp_scale
            from runpod.serverless.modules.rp_http import send_result
            from runpod.serverless.modules.worker_state import JobsProgress
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed: install the worker as musetalk-worker[runpod]."
        ) from error
    rp_scale.get_job = _patiently(rp_scale.get_job)
    return Sdk(
        start=serverless.start,
        register_fitness_check=serverless.register_fitness_check,
        open_session=AsyncClientSession,
        send=send_result,
        jobs_in_hand=JobsProgress(),
    )


def _patiently(ask: Ask) -> Ask:
    """Spare a server that is out of order thousands of questions a second, and the log their echo.

    A server in order needs no such care: it answers when it has a job, or after a while.
    """

    async def ask_patiently(session: Any, most: int) -> list[RunpodJob] | None:
        soonest = time.monotonic() + ASKING_SECONDS
        try:
            jobs = await ask(session, most)
        except Exception:
            await asyncio.sleep(soonest - time.monotonic())
            raise
        if not jobs:
            await asyncio.sleep(soonest - time.monotonic())
        return jobs

    return ask_patiently


@contextmanager
def _without_cpuinfo() -> Iterator[None]:
    """Spare each cold start two seconds, in which the SDK would ask for the name of the CPU."""
    nameless = ModuleType("cpuinfo")
    vars(nameless)["get_cpu_info"] = dict
    known = sys.modules.setdefault("cpuinfo", nameless)
    try:
        yield
    finally:
        if known is nameless:
            del sys.modules["cpuinfo"]
