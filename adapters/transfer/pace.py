"""How slow a server may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import httpcore2

BYTES_IN_KB = 1024


class TooSlow(httpcore2.ReadTimeout):
    """The server keeps the connection alive, and us waiting; another try may find it quicker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Say how many bytes a second must come, on the average of how long."""

    least_bytes_per_second: float = 16 * BYTES_IN_KB
    window_seconds: float = 15.0


class Meter:
    """Holds one connection to a pace.

    Only the time spent waiting for the server counts, not what we do meanwhile; and it counts from
    the first byte on, so that a server may think before it answers. The time is cut into windows:
    what came quickly before makes up for nothing later.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._begun = False
        self._bytes = 0
        self._seconds = 0.0

    def note(self, size: int, waited_seconds: float, patience_seconds: float | None) -> None:
        """Take note of bytes that came; raise :class:`TooSlow` if a window brought too few.

        ``patience_seconds`` is how long the server may be silent: no window is shorter, or this
        would overrule it.
        """
        self._bytes += size
        self._seconds += waited_seconds if self._begun else 0.0
        self._begun = True
        patience = math.inf if patience_seconds is None else patience_seconds
        window = max(self._pace.window_seconds, patience)
        if self._seconds < window:
            return
        if self._bytes < self._pace.least_bytes_per_second * self._seconds:
            least = self._pace.least_bytes_per_second / BYTES_IN_KB
            raise TooSlow(f"the server sent less than {least:g} KB/s for {window:g} s")
        self._bytes, self._seconds = 0, 0.0
