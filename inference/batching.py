"""Give a network as many items at once as its memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from handler.errors import OutOfMemory

Item = TypeVar("Item")
Output = TypeVar("Output")


class MemoryExhausted(Exception):
    """A network found no memory for its batch; it may be tried again with a smaller one."""


class Batch:
    """Hold how many items go into a network at once: halved each time memory runs out.

    One for each job: what the job before could not get may be free again.
    """

    def __init__(self, size: int) -> None:
        """Begin with ``size`` items."""
        self.size = size

    def run(
        self, network: Callable[[Sequence[Item]], Output], items: Iterable[Item]
    ) -> Iterator[tuple[Sequence[Item], Output]]:
        """Yield batches of consecutive items, and what the network made of each.

        Raises :class:`OutOfMemory` if not even one item finds room.
        """
        rest = iter(items)
        while batch := list(islice(rest, self.size)):
            while batch:
                part = batch[: self.size]
                try:
                    output = network(part)
                except MemoryExhausted as error:
                    self._halve(error)
                    continue
                yield part, output
                batch = batch[len(part) :]

    def _halve(self, error: MemoryExhausted) -> None:
        if self.size == 1:
            raise OutOfMemory(
                "The job does not fit into this worker's memory, even one frame at a time."
            ) from error
        self.size //= 2
