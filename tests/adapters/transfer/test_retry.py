from __future__ import annotations

import pytest

from adapters.transfer.retry import Retry, Transient


class Attempts:
    """Fails as often as it is told, then succeeds."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)

    def __call__(self, number: int) -> str:
        if self.failures:
            raise self.failures.pop(0)
        return f"try {number}"


def test_what_fails_for_a_moment_is_tried_again() -> None:
    slept: list[float] = []

    result = _retry(slept).run(Attempts(Transient("a"), Transient("b")), _at_ease)

    assert result == "try 3"


def test_the_last_failure_comes_out_when_all_tries_are_used_up() -> None:
    failures = [Transient(str(number)) for number in range(1, 9)]

    with pytest.raises(Transient, match="4"):
        _retry([]).run(Attempts(*failures), _at_ease)


@pytest.mark.parametrize(("tries", "effort"), [(1, "1 try"), (3, "3 tries")])
def test_a_failure_knows_how_often_it_was_tried(tries: int, effort: str) -> None:
    failures = [Transient("busy") for _ in range(tries)]

    with pytest.raises(Transient) as failure:
        Retry(tries=tries, sleep=[].append).run(Attempts(*failures), _at_ease)

    assert failure.value.effort == effort


def test_what_no_try_would_mend_is_not_tried_again() -> None:
    slept: list[float] = []

    with pytest.raises(KeyError):
        _retry(slept).run(Attempts(KeyError()), _at_ease)

    assert slept == []


def test_waits_double_up_to_the_longest() -> None:
    slept: list[float] = []
    retry = Retry(tries=5, longest_seconds=3.0, sleep=slept.append, chance=lambda: 1.0)

    retry.run(Attempts(*[Transient("busy")] * 4), _at_ease)

    assert sum(slept) == 1 + 2 + 3 + 3


def test_waits_are_spread_so_that_a_thousand_workers_do_not_come_back_at_once() -> None:
    slept: list[float] = []
    retry = Retry(sleep=slept.append, chance=lambda: 0.25)

    retry.run(Attempts(Transient("busy")), _at_ease)

    assert slept == [0.25]


def test_a_server_that_asks_for_time_gets_it_within_reason() -> None:
    slept: list[float] = []
    retry = _retry(slept)

    retry.run(Attempts(Transient("busy", asked_seconds=5)), _at_ease)
    assert sum(slept) == 5

    with pytest.raises(Transient, match="closed"):
        retry.run(Attempts(Transient("closed", asked_seconds=86400)), _at_ease)
    assert sum(slept) == 5


def test_a_wait_can_be_stopped_within_a_second() -> None:
    slept: list[float] = []
    beats: list[None] = []

    def pulse() -> None:
        beats.append(None)
        if len(beats) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _retry(slept).run(Attempts(Transient("busy", asked_seconds=30)), pulse)

    assert slept == [1.0, 1.0]


def _retry(slept: list[float]) -> Retry:
    return Retry(sleep=slept.append, chance=lambda: 0.0)


def _at_ease() -> None:
    """Let everything go on."""
