"""When a transfer is tried again, and how long that waits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

#: Longest sleep in which nobody can stop the transfer.
NAP_SECONDS = 1.0


class Transient(Exception):
    """A try failed for a reason that may pass; the message says which and holds no secret."""

    def __init__(
        self, reason: str, *, status: int | None = None, asked_seconds: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.status = status
        #: How many tries there were, this one included; :class:`Retry` knows.
        self.tries = 1
        #: How long the server wishes to be left alone.
        self.asked_seconds = asked_seconds

    @property
    def effort(self) -> str:
        """Return the number of tries, in words."""
        return "1 try" if self.tries == 1 else f"{self.tries} tries"

    @property
    def details(self) -> dict[str, Any]:
        """Return what a failure tells of it: the reason, and the status if there was one."""
        status = {} if self.status is None else {"status_code": self.status}
        return {"reason": str(self), **status}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Say how often something is tried, with exponential back-off and full jitter between."""

    tries: int = 4
    first_seconds: float = 1.0
    longest_seconds: float = 8.0
    #: A server may ask for more than our own longest wait; who asks for more than this is given up,
    #: as coming back earlier would be in vain.
    longest_asked_seconds: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    #: Returns a number from 0 to 1, the share of the back-off that is waited.
    chance: Callable[[], float] = random.random

    def run(self, attempt: Callable[[int], T], pulse: Callable[[], None]) -> T:
        """Call ``attempt`` with 1, 2, ... until it returns something, and return that.

        ``pulse`` is called before each try and while waiting; what it raises ends everything.
        Raises the :class:`Transient` of the last try, and at once whatever else a try raises.
        """
        number = 0
        while True:
            number += 1
            pulse()
            try:
                return attempt(number)
            except Transient as failure:
                failure.tries = number
                if number >= self.tries or failure.asked_seconds > self.longest_asked_seconds:
                    raise
                seconds = self._pause(number, failure)
            self._wait(seconds, pulse)

    def _pause(self, number: int, failure: Transient) -> float:
        back_off = min(self.longest_seconds, self.first_seconds * 2.0 ** (number - 1))
        return max(failure.asked_seconds, back_off * self.chance())

    def _wait(self, seconds: float, pulse: Callable[[], None]) -> None:
        while seconds > 0:
            self.sleep(min(seconds, NAP_SECONDS))
            seconds -= NAP_SECONDS
            pulse()


#: What transfers do unless they are told otherwise.
PATIENT = Retry()
