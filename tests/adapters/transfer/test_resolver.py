from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import httpcore2
import pytest

from adapters.transfer.resolver import LOOK_UPS_AT_ONCE, Resolver
from handler.errors import Cancelled

#: Longer than any of these tests.
FOR_EVER_SECONDS = 60.0


class DeafNameServer:
    """Lets everybody wait until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        self.over.wait(FOR_EVER_SECONDS)
        return []


@pytest.fixture
def deaf() -> Iterator[DeafNameServer]:
    server = DeafNameServer()
    yield server
    server.over.set()


def test_addresses_are_found() -> None:
    resolver = Resolver(lambda host, port: [f"address of {host} for {port}"])

    assert resolver.addresses("x.test", 443, _at_ease) == ["address of x.test for 443"]


def test_what_goes_wrong_comes_out_however_often() -> None:
    def look_up(host: str, port: int) -> Sequence[str]:
        raise KeyError(host)

    resolver = Resolver(look_up)

    for _ in range(3 * LOOK_UPS_AT_ONCE):
        with pytest.raises(KeyError, match=r"x\.test"):
            resolver.addresses("x.test", 443, _at_ease)


def test_a_look_up_that_takes_too_long_may_be_tried_again(deaf: DeafNameServer) -> None:
    resolver = Resolver(deaf, limit_seconds=0.01)

    with pytest.raises(httpcore2.ConnectError, match=r"'x\.test' could not be looked up within"):
        resolver.addresses("x.test", 443, _at_ease)


def test_a_look_up_can_be_left_alone(deaf: DeafNameServer) -> None:
    beats: list[None] = []

    def pulse() -> None:
        beats.append(None)
        if len(beats) == 2:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        Resolver(deaf).addresses("x.test", 443, pulse)


def test_look_ups_that_never_end_do_not_pile_up(deaf: DeafNameServer) -> None:
    resolver = Resolver(deaf, limit_seconds=0.01)

    for _ in range(3 * LOOK_UPS_AT_ONCE):
        with pytest.raises(httpcore2.ConnectError):
            resolver.addresses("x.test", 443, _at_ease)

    assert len(deaf.asked) == LOOK_UPS_AT_ONCE


def test_a_look_up_that_never_ends_does_not_keep_the_process(deaf: DeafNameServer) -> None:
    before = set(threading.enumerate())

    with pytest.raises(httpcore2.ConnectError):
        Resolver(deaf, limit_seconds=0.01).addresses("x.test", 443, _at_ease)

    left = set(threading.enumerate()) - before
    assert [thread.daemon for thread in left] == [True]


def _at_ease() -> None:
    """Let everything go on."""
