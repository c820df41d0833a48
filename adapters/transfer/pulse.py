"""Wait for the world, yet stop at once when the job is over."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")

#: How often somebody who waits is asked whether to go on.
PULSE_SECONDS = 0.5

#: Called before each step of a transfer and while waiting; raises to stop it.
Pulse = Callable[[], None]


def patiently(step: Callable[[float], T], seconds: float | None, pulse: Pulse) -> T:
    """Take a step that waits, a slice of time after the other; the pulse may end it between two.

    ``step`` gets the seconds of its slice and raises :class:`TimeoutError` when they are over.
    Raises that if all ``seconds`` are over, None being for ever.
    """
    left = math.inf if seconds is None else seconds
    while left > PULSE_SECONDS:
        pulse()
        try:
            return step(PULSE_SECONDS)
        except TimeoutError as error:
            # With a number it is not our slice that is over, but the system's own patience.
            if error.errno is not None:
                raise
        left -= PULSE_SECONDS
    pulse()
    return step(left)


def beside(work: Callable[[], T], pulse: Pulse, seconds: float | None = None) -> T:
    """Do what cannot be interrupted, in a thread that is left behind when the pulse raises.

    Raises :class:`TimeoutError` if all ``seconds`` are over, None being for ever.
    """
    done: Future[T] = Future()

    def settle() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            done.set_exception(error)

    def arrive(seconds: float) -> None:
        # The work's own TimeoutError is no word of the time it has here.
        if not wait([done], seconds).done:
            raise TimeoutError

    threading.Thread(target=settle, daemon=True).start()
    patiently(arrive, seconds, pulse)
    return done.result()
