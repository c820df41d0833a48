"""How far a job is, told to whoever asked (docs/contract.md section 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """Name what a job is doing, in the words that callers know."""

    DOWNLOADING = "downloading"
    INFERRING = "inferring"
    ENCODING = "encoding"
    UPLOADING = "uploading"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Progress:
    """Say how much of a job is done; ``fraction`` never falls and is 1 only at the end."""

    phase: Phase
    fraction: float

    def to_json(self) -> dict[str, Any]:
        """Return the shape that callers know."""
        return {"status": "running", "progress": round(self.fraction, 4), "phase": self.phase.value}


#: Receives progress; raises :class:`handler.errors.Cancelled` to take the job back.
Report = Callable[[Progress], None]

#: Receives the done fraction of one step, 0 to 1; raises to stop that step.
Tick = Callable[[float], None]


def ignore(progress: Progress) -> None:
    """Take no interest."""


#: Share of a whole job at which each phase starts; preparing and animating take most of it.
_STARTS = {
    Phase.DOWNLOADING: 0.0,
    Phase.INFERRING: 0.05,
    Phase.ENCODING: 0.94,
    Phase.UPLOADING: 0.96,
}
_ENDS = {
    Phase.DOWNLOADING: 0.05,
    Phase.INFERRING: 0.94,
    Phase.ENCODING: 0.96,
    Phase.UPLOADING: 0.99,
}


class Reporter:
    """Turn the ticks of single steps into one fraction that never falls."""

    def __init__(self, report: Report, check: Callable[[], None]) -> None:
        """Report to ``report``; call ``check`` at each tick, which raises if time is up."""
        self._report = report
        self._check = check
        self._fraction = 0.0

    def step(self, phase: Phase, start: float = 0.0, end: float = 1.0) -> Tick:
        """Return a tick for the part of a phase between two fractions of it."""
        first, last = _STARTS[phase], _ENDS[phase]

        def tick(fraction: float) -> None:
            self._check()
            within = start + (end - start) * min(max(fraction, 0.0), 1.0)
            self._fraction = max(self._fraction, first + (last - first) * within)
            self._report(Progress(phase, self._fraction))

        return tick

    def finish(self, phase: Phase) -> None:
        """Report the end, which nothing can take back."""
        self._fraction = 1.0 if phase is Phase.COMPLETED else self._fraction
        self._report(Progress(phase, self._fraction))
