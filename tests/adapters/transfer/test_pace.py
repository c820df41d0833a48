from __future__ import annotations

import pytest

from adapters.transfer.pace import Meter, Pace, TooSlow

KB = 1024

#: How long the server may be silent.
PATIENCE_SECONDS = 15.0


def test_a_server_may_think_before_it_answers() -> None:
    meter = Meter(Pace())

    meter.note(1, 600.0, PATIENCE_SECONDS)

    assert _send(meter, kilobytes_a_second=16, seconds=60) == 16 * 60


def test_a_quick_server_is_left_alone() -> None:
    assert _send(_begun(), kilobytes_a_second=16, seconds=600) == 16 * 600


def test_a_slow_server_is_noticed_as_soon_as_its_time_is_over() -> None:
    meter = _begun()
    _send(meter, kilobytes_a_second=15, seconds=14)

    with pytest.raises(TooSlow, match="the server sent less than 16 KB/s for 15 s"):
        _send(meter, kilobytes_a_second=15, seconds=1)


def test_haste_at_the_beginning_makes_up_for_nothing_later() -> None:
    meter = _begun()
    _send(meter, kilobytes_a_second=10_000, seconds=15)

    with pytest.raises(TooSlow):
        _send(meter, kilobytes_a_second=1, seconds=15)


def test_a_silence_that_is_allowed_is_not_slowness() -> None:
    meter = Meter(Pace())
    patience_seconds = 60.0
    meter.note(1, 0.0, patience_seconds)

    meter.note(1, 59.0, patience_seconds)

    with pytest.raises(TooSlow):
        meter.note(1, 1.0, patience_seconds)


def test_whoever_waits_for_ever_waits_for_slow_servers_too() -> None:
    meter = Meter(Pace())

    came = _send(meter, kilobytes_a_second=0, seconds=100_000, patience_seconds=None)

    assert came == 0


def _begun() -> Meter:
    meter = Meter(Pace())
    meter.note(1, 0.0, PATIENCE_SECONDS)
    return meter


def _send(
    meter: Meter,
    *,
    kilobytes_a_second: int,
    seconds: int,
    patience_seconds: float | None = PATIENCE_SECONDS,
) -> int:
    """Have that much sent, unless it is too slow; return the kilobytes that came."""
    for second in range(seconds):
        meter.note(kilobytes_a_second * KB, 1.0, patience_seconds)
        kilobytes = kilobytes_a_second * (second + 1)
    return kilobytes
