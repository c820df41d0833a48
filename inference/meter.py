"""How long each step of a chain of generators was busy, not counting its waits for the others."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Meter:
    """Add up the busy seconds of steps; each step runs in one thread."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @property
    def seconds(self) -> dict[str, float]:
        """Busy seconds of each step so far."""
        return dict(self._seconds)

    @contextmanager
    def busy(self, step: str) -> Iterator[None]:
        """Count the time within as work of a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[step] += time.perf_counter() - start

    def working(self, step: str, items: Iterable[Item]) -> Iterator[Item]:
        """Count the time in which items come into being as work of a step."""
        iterator = iter(items)
        while True:
            with self.busy(step):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def waiting(self, step: str, items: Iterable[Item]) -> Iterator[Item]:
        """Take the time in which items come into being out of a step's work."""
        for item in self.working(f"{step}.waits", items):
            self._seconds[step] -= self._seconds.pop(f"{step}.waits")
            yield item
        self._seconds[step] -= self._seconds.pop(f"{step}.waits")
