"""Where the time of a job went."""

from __future__ import annotations

from handler.errors import Stage
from handler.ports import Clock

#: The result knows four stages; what the engine does is one of them.
_REPORTED_AS = {
    Stage.DOWNLOAD: "download",
    Stage.VALIDATION: "validation",
    Stage.PREPROCESSING: "inference",
    Stage.INFERENCE: "inference",
    Stage.POSTPROCESSING: "inference",
    Stage.UPLOAD: "upload",
}


class Stopwatch:
    """Time the stages of a job without a gap between them, so that they add up to the whole."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = self._lap_started = clock()
        self._seconds: dict[str, float] = {}
        self.stage = Stage.DOWNLOAD

    def enter(self, stage: Stage) -> None:
        """Close the stage in hand and open the next."""
        now = self._clock()
        name = _REPORTED_AS[self.stage]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._lap_started
        self._lap_started = now
        self.stage = stage

    def finish(self) -> None:
        """Close the last stage."""
        self.enter(self.stage)

    @property
    def elapsed(self) -> float:
        """Seconds since the job came in."""
        return self._clock() - self._started

    @property
    def total(self) -> float:
        """Seconds up to the end of the last closed stage."""
        return self._lap_started - self._started

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each stage so far, in the names of the contract."""
        return {name: round(seconds, 4) for name, seconds in self._seconds.items()}

    @property
    def finished(self) -> dict[str, float]:
        """The same, without the stage in hand."""
        in_hand = _REPORTED_AS[self.stage]
        return {name: seconds for name, seconds in self.seconds.items() if name != in_hand}
