"""Running ahead: in order, not too far, errors and all, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count

import pytest

from inference.pipeline import ahead, one_behind

PATIENT_SECONDS = 20


class Source:
    """Counts without end, and lets a test wait until it has made so many numbers."""

    def __init__(self) -> None:
        self.made = 0
        self.closed_in: int | None = None
        self._more = threading.Condition()

    def __iter__(self) -> Iterator[int]:
        try:
            for number in count():
                with self._more:
                    self.made = number + 1
                    self._more.notify_all()
                yield number
        finally:
            self.closed_in = threading.get_ident()

    def wait_for(self, made: int) -> None:
        """Return once so many numbers have been made."""
        with self._more:
            assert self._more.wait_for(lambda: self.made >= made, PATIENT_SECONDS)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Look for threads after each test."""
    before = set(threading.enumerate())

    yield

    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("depth", [1, 4, 100])
def test_items_come_out_as_they_went_in(depth: int) -> None:
    with ahead(range(1000), depth) as items:
        got = list(items)

    assert got == list(range(1000))


def test_nothing_in_is_nothing_out() -> None:
    with ahead([], 4) as items:
        got = list(items)

    assert got == []


def test_an_item_may_be_none() -> None:
    with ahead([None, 1, None], 4) as items:
        got = list(items)

    assert got == [None, 1, None]


def test_the_next_item_is_made_while_the_last_is_in_use() -> None:
    source = Source()

    with ahead(iter(source), 3) as items:
        next(items)
        source.wait_for(made=4)

    assert source.made >= 4


def test_no_more_is_made_than_there_is_room_for() -> None:
    source, depth = Source(), 3

    with ahead(iter(source), depth) as items:
        for taken in range(1, 50):
            next(items)
            source.wait_for(made=taken + depth)
            assert source.made <= taken + depth + 2


def test_an_error_reaches_the_consumer_after_what_was_made_before_it() -> None:
    error = LookupError("the third is missing")

    def faulty() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    with ahead(faulty(), 4) as items:
        got = [next(items), next(items)]
        with pytest.raises(LookupError) as crossed:
            next(items)

    assert got == [1, 2]
    assert crossed.value is error


@pytest.mark.parametrize("taken", [0, 1, 10])
def test_a_consumer_who_leaves_early_stops_the_source_in_its_own_thread(taken: int) -> None:
    source = Source()

    with ahead(iter(source), 2) as items:
        for _ in range(taken):
            next(items)
        source.wait_for(made=taken + 1)

    assert source.closed_in not in (None, threading.get_ident())


def test_a_consumer_who_fails_stops_the_source() -> None:
    source = Source()

    def consume() -> None:
        with ahead(iter(source), 2) as items:
            next(items)
            raise LookupError

    with pytest.raises(LookupError):
        consume()

    assert source.closed_in is not None


def test_a_chain_stops_from_its_end_to_its_beginning() -> None:
    source = Source()

    with (
        ahead(iter(source), 2) as numbers,
        ahead((number * 10 for number in numbers), 2) as tens,
    ):
        got = [next(tens), next(tens)]

    assert got == [0, 10]
    assert source.closed_in is not None


def test_an_error_at_the_beginning_of_a_chain_reaches_its_end() -> None:
    def faulty() -> Iterator[int]:
        yield 1
        raise LookupError

    with (
        ahead(faulty(), 2) as numbers,
        ahead((number * 10 for number in numbers), 2) as tens,
        pytest.raises(LookupError),
    ):
        list(tens)


def test_an_error_that_nobody_waited_for_leaves_nothing_behind() -> None:
    def faulty() -> Iterator[int]:
        yield from range(3)
        raise LookupError

    with ahead(faulty(), 10) as items:
        first = next(items)

    assert first == 0


@pytest.mark.parametrize("total", [0, 1, 2, 100])
def test_what_is_given_one_behind_is_all_of_it_in_order(total: int) -> None:
    assert list(one_behind(range(total))) == list(range(total))


def test_the_next_item_is_begun_before_the_last_is_given_and_none_beyond_it() -> None:
    source = Source()
    items = one_behind(iter(source))

    begun = [(next(items), source.made) for _ in range(4)]

    assert begun == [(0, 2), (1, 3), (2, 4), (3, 5)]


def test_an_error_is_not_held_back() -> None:
    def faulty() -> Iterator[int]:
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        next(one_behind(faulty()))


def test_a_consumer_who_wants_no_more_stops_what_runs_one_ahead_of_it() -> None:
    source = Source()
    items = one_behind(iter(source))
    next(items)

    del items

    assert source.closed_in == threading.get_ident()
