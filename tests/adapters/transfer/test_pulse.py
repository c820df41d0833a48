"""Waiting for what cannot be interrupted."""

from __future__ import annotations

import threading

import pytest

from adapters.transfer.pulse import beside
from handler.errors import Cancelled


def test_work_that_ran_out_of_its_own_time_is_over_and_not_waited_for() -> None:
    pulses: list[None] = []

    def work() -> None:
        raise TimeoutError("timed out")

    with pytest.raises(TimeoutError, match="timed out"):
        beside(work, lambda: pulses.append(None))

    assert len(pulses) == 1


def test_work_that_takes_too_long_is_left_behind() -> None:
    end = threading.Event()

    with pytest.raises(TimeoutError):
        beside(end.wait, lambda: None, seconds=0.01)

    assert not end.is_set()
    end.set()


def test_work_that_nobody_needs_any_more_is_left_behind() -> None:
    end = threading.Event()

    def cancel() -> None:
        raise Cancelled("The caller has hung up.")

    with pytest.raises(Cancelled):
        beside(end.wait, cancel)

    assert not end.is_set()
    end.set()
