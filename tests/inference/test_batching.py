"""Batches: everything once and in order, however little memory there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count

import pytest

from handler.errors import OutOfMemory
from inference.batching import Batch, MemoryExhausted


def doubled(items: Sequence[int]) -> list[int]:
    """Be a network with all the memory it needs."""
    return [2 * item for item in items]


def with_room_for(room: int) -> Callable[[Sequence[int]], list[int]]:
    """Return a network that finds memory for so many items at once."""

    def network(items: Sequence[int]) -> list[int]:
        if len(items) > room:
            raise MemoryExhausted(f"no room for {len(items)}")
        return doubled(items)

    return network


@pytest.mark.parametrize("size", [1, 3, 8, 64])
@pytest.mark.parametrize("total", [0, 1, 8, 20])
def test_every_item_goes_in_once_and_in_order(size: int, total: int) -> None:
    batches = list(Batch(size).run(doubled, range(total)))

    assert list(chain.from_iterable(items for items, _ in batches)) == list(range(total))
    assert all(output == doubled(items) for items, output in batches)
    assert all(len(items) == size for items, _ in batches[:-1])


@pytest.mark.parametrize(
    ("size", "room", "left"), [(8, 8, 8), (8, 7, 4), (8, 2, 2), (8, 1, 1), (7, 2, 1), (64, 5, 4)]
)
def test_a_batch_is_halved_until_it_fits_and_loses_nothing(size: int, room: int, left: int) -> None:
    batch = Batch(size)

    batches = list(batch.run(with_room_for(room), range(100)))

    assert batch.size == left
    assert list(chain.from_iterable(items for items, _ in batches)) == list(range(100))
    assert all(output == doubled(items) for items, output in batches)
    assert max(len(items) for items, _ in batches) == left


def test_memory_that_runs_out_late_costs_nothing_that_was_done_before() -> None:
    batch, rooms = Batch(4), iter([4, 4, 3, 4, 4, 4])
    tried: list[Sequence[int]] = []

    def network(items: Sequence[int]) -> list[int]:
        tried.append(items)
        return with_room_for(next(rooms))(items)

    list(batch.run(network, range(12)))

    # The third was too much; it is tried again in halves, and nothing else is.
    assert tried == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [8, 9], [10, 11]]


def test_what_one_job_could_not_get_the_next_may_ask_for() -> None:
    short_of_memory, next_job = Batch(8), Batch(8)

    list(short_of_memory.run(with_room_for(2), range(8)))
    sizes = [len(items) for items, _ in next_job.run(doubled, range(8))]

    assert sizes == [8]


def test_a_job_that_does_not_fit_even_one_by_one_says_so() -> None:
    batches = Batch(8).run(with_room_for(0), range(8))

    with pytest.raises(OutOfMemory, match="even one frame at a time") as failure:
        next(batches)

    assert failure.value.retryable
    assert failure.value.details == {"is_oom": True}
    assert isinstance(failure.value.__cause__, MemoryExhausted)


def test_a_fault_that_is_not_of_memory_is_no_reason_to_try_again() -> None:
    tried = []

    def network(items: Sequence[int]) -> list[int]:
        tried.append(items)
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        list(Batch(8).run(network, range(8)))

    assert len(tried) == 1


def test_no_more_items_are_made_than_the_batch_at_hand_takes() -> None:
    made = []

    def source() -> Iterator[int]:
        for number in count():
            made.append(number)
            yield number

    batches = Batch(3).run(doubled, source())
    next(batches)
    first = len(made)
    next(batches)

    assert (first, len(made)) == (3, 6)
