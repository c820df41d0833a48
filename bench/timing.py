"""How long things take: ratios come from one run on one machine, turn by turn."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

#: How often a thing is done for a median.
ROUNDS = 5


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_seconds(*works: Callable[[], object], rounds: int = ROUNDS) -> Sequence[float]:
    """Return the median of each, done in turns: a machine that slows down slows all alike."""
    taken = [[seconds(work) for work in works] for _ in range(rounds)]
    return [median(each) for each in zip(*taken, strict=True)]


def command_seconds(command: Sequence[str]) -> float:
    """Return the median of a command, from its start to its end."""
    run = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    return median_seconds(run)[0]
