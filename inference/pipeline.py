"""Run one step of a chain of generators ahead of the next."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any, TypeVar

Item = TypeVar("Item")


@contextmanager
def ahead(items: Iterable[Item], depth: int) -> Iterator[Iterator[Item]]:
    """Iterate over ``items`` in a thread, at most ``depth`` items in front of the consumer.

    Errors cross over to the consumer. Leaving the context stops the thread, closes ``items`` if
    that is a generator, and waits for it: nothing runs on behind the consumer's back.
    """
    buffer: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, buffer, stopped), daemon=True)
    thread.start()
    try:
        yield _consume(buffer)
    finally:
        stopped.set()
        while thread.is_alive():
            _drain(buffer)
            thread.join(0.01)


def one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """Yield each item once the next has come into being: what it began goes on meanwhile."""
    before: list[Item] = []
    for item in items:
        yield from before
        before = [item]
    yield from before


def _produce(items: Iterable[Any], buffer: queue.Queue[Any], stopped: threading.Event) -> None:
    end: BaseException | None = None
    try:
        with closing(items) if hasattr(items, "close") else nullcontext():  # type: ignore[type-var]
            for item in items:
                buffer.put((item, None))
                if stopped.is_set():
                    return
    except BaseException as error:  # noqa: BLE001 - whatever it is, the consumer must see it
        end = error
    buffer.put((None, end or StopIteration()))


def _consume(buffer: queue.Queue[tuple[Any, BaseException | None]]) -> Iterator[Any]:
    while True:
        item, end = buffer.get()
        if isinstance(end, StopIteration):
            return
        if end is not None:
            raise end
        yield item


def _drain(buffer: queue.Queue[Any]) -> None:
    while not buffer.empty():
        buffer.get_nowait()
