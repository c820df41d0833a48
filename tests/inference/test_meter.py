"""Metering: a step's own work, and none of its waits for the others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import pytest

from inference.meter import Meter
from inference.pipeline import ahead


def work(seconds: float) -> None:
    """Be busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def worked(items: Iterable[int], seconds: float) -> Iterator[int]:
    """Work for each item."""
    for item in items:
        work(seconds)
        yield item


def test_the_time_within_is_a_steps_work() -> None:
    meter = Meter()
    start = time.perf_counter()

    for _ in range(2):
        with meter.busy("paste"):
            work(0.02)
        work(0.02)

    elapsed = time.perf_counter() - start
    assert 0.04 <= meter.seconds["paste"] <= elapsed - 0.04


def test_work_that_fails_was_work_all_the_same() -> None:
    meter = Meter()

    def fail() -> None:
        with meter.busy("paste"):
            work(0.02)
            raise LookupError

    with pytest.raises(LookupError):
        fail()

    assert meter.seconds["paste"] >= 0.02


def test_making_items_is_work_and_using_them_is_not() -> None:
    meter = Meter()
    start = time.perf_counter()

    got = []
    for item in meter.working("mouth", worked(range(3), 0.01)):
        work(0.02)
        got.append(item)

    elapsed = time.perf_counter() - start
    assert got == [0, 1, 2]
    assert 0.03 <= meter.seconds["mouth"] <= elapsed - 0.06


def test_waiting_for_items_is_no_work() -> None:
    meter = Meter()
    start = time.perf_counter()

    with meter.busy("encode"):
        for _ in meter.waiting("encode", worked(range(3), 0.02)):
            work(0.01)

    elapsed = time.perf_counter() - start
    assert 0.03 <= meter.seconds["encode"] <= elapsed - 0.06
    assert list(meter.seconds) == ["encode"]


def test_steps_side_by_side_are_each_counted_on_their_own() -> None:
    meter = Meter()
    start = time.perf_counter()

    def mouths(frames: Iterable[int]) -> Iterator[int]:
        return meter.working("mouth", worked(meter.waiting("mouth", frames), 0.01))

    with (
        ahead(worked(range(5), 0.02), 2) as frames,
        ahead(mouths(frames), 2) as pictures,
        meter.busy("encode"),
    ):
        got = list(meter.waiting("encode", pictures))

    elapsed = time.perf_counter() - start
    assert got == [0, 1, 2, 3, 4]
    assert set(meter.seconds) == {"mouth", "encode"}
    assert 0.05 <= meter.seconds["mouth"] <= elapsed
    # It did nothing but wait.
    assert 0 <= meter.seconds["encode"] <= elapsed / 2


def test_no_items_are_no_work() -> None:
    meter = Meter()

    with meter.busy("encode"):
        assert not list(meter.waiting("encode", []))

    assert 0 <= meter.seconds["encode"] < 0.1


def test_what_was_read_off_stands_still() -> None:
    meter = Meter()
    with meter.busy("paste"):
        pass
    read = meter.seconds

    with meter.busy("paste"):
        work(0.01)

    assert read["paste"] < meter.seconds["paste"]
