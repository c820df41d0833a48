"""What is used of RunPod's SDK, imported so that it starts quickly and keeps its mouth shut."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sized
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from adapters.config import ConfigError

#: Levels at which the SDK does not print what jobs return.
DISCREET_LEVELS = frozenset({"INFO", "WARN", "ERROR", "NOTSET"})

#: A job as RunPod hands it out: ``id``, ``input`` and more.
RunpodJob = dict[str, Any]


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
            from runpod.serverless.modules.rp_http import send_result
            from runpod.serverless.modules.worker_state import JobsProgress
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed: install the worker as musetalk-worker[runpod]."
        ) from error
    return Sdk(
        start=serverless.start,
        register_fitness_check=serverless.register_fitness_check,
        open_session=AsyncClientSession,
        send=send_result,
        jobs_in_hand=JobsProgress(),
    )


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
