"""How the stories of downloads begin and end."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.transfer.fetch import STEADFAST, HttpFetch
from adapters.transfer.guard import Policy
from adapters.transfer.pace import Pace
from handler.errors import DeadlineExceeded, WorkerError
from handler.progress import Tick
from tests.adapters.transfer.loopback import HOST

POLICY = Policy(allow_http=True, private_hosts=frozenset({HOST}))
SECRET = "X-Amz-Signature=5ecre7"
MB = 1024**2

#: What a server's answer may last that is not there to be slow.
STALL_SECONDS = 5.0


def fetcher(
    slept: list[float] | None = None,
    *,
    policy: Policy = POLICY,
    max_bytes: int = 10 * MB,
    stall_seconds: float = STALL_SECONDS,
    pace: Pace | None = None,
) -> HttpFetch:
    """Return a fetch that notes its pauses down instead of waiting."""
    sleep = (slept if slept is not None else []).append
    retry = replace(STEADFAST, sleep=sleep, chance=lambda: 1.0)
    return HttpFetch(
        policy, max_bytes=max_bytes, stall_seconds=stall_seconds, pace=pace, retry=retry
    )


def failure(kind: type[WorkerError], url: str, folder: Path, **options: Any) -> WorkerError:
    """Return how a download fails."""
    with pytest.raises(kind) as raised:
        fetcher(**options)(url, folder / "v", ignore)
    return raised.value


def ignore(fraction: float) -> None:
    """Take no interest."""


def raising_at(count: int, error: Exception) -> Tick:
    """Return a tick that raises when it is called for the given time."""
    fractions: list[float] = []

    def tick(fraction: float) -> None:
        fractions.append(fraction)
        if len(fractions) == count:
            raise error

    return tick


class Deadline:
    """A tick that raises when time is up, and knows by how much that was too late."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def __call__(self, fraction: float) -> None:
        if self.seconds_over > 0:
            raise DeadlineExceeded("late")

    @property
    def seconds_over(self) -> float:
        return time.monotonic() - self._ends
