"""One process after the other, as long as another may help."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import NoReturn

from adapters.supervision.loaded import EngineFacts, Start
from adapters.supervision.messages import Failed
from adapters.supervision.patience import BEAT_SECONDS, Patience
from adapters.supervision.process import EngineProcess
from handler.errors import EngineDied, EngineStalled, WorkerBroken
from handler.progress import Tick

#: With so many replacements in the time that is remembered, another would not help.
MOST_REPLACEMENTS = 2

#: Is told why a process was replaced by another.
Tell = Callable[[str], None]


class Succession:
    """Hold the process that an engine lives in now, and know when to give up."""

    def __init__(self, start: Start, patience: Patience, tell: Tell) -> None:
        """Load the first engine and wait for it; ``tell`` of each that takes its place.

        Raises what ``start`` raises, :class:`EngineDied` if its process ends and
        :class:`EngineStalled` if it takes too long.
        """
        self._start = start
        self._patience = patience
        self._tell = tell
        self._replaced_at: list[float] = []
        #: Why there is no engine any more.
        self._end: str | None = None
        self.process = self._begin()
        if reason := self._load(_wait):
            self.process.end()
            raise reason

    @property
    def facts(self) -> EngineFacts:
        """Return what the engine is; each process has the same."""
        return self._facts

    def ready(self, tick: Tick) -> EngineProcess:
        """Return a process in which the engine is loaded, once there is one.

        Raises :class:`WorkerBroken` if there will be none, and what ``tick`` raises.
        """
        if self._end:
            raise WorkerBroken(self._end)
        if not self.process.alive:
            # It died between two jobs, and none of them is to blame.
            self.replace(self.process.death())
        if reason := self._load(tick):
            self._give_up(f"The engine could not be loaded again: {reason}", reason)
        return self.process

    def replace(self, reason: Exception) -> None:
        """Kill the process and begin another, which loads while the job in hand is answered.

        Raises :class:`WorkerBroken` if the process cannot be killed or too many had to be.
        """
        try:
            self.process.end()
        except subprocess.TimeoutExpired:
            self._give_up("The engine's process cannot be ended.", reason)
        if self._end:
            raise WorkerBroken(self._end) from reason
        now = time.monotonic()
        since = now - self._patience.memory_seconds
        self._replaced_at = [*(at for at in self._replaced_at if at > since), now]
        if len(self._replaced_at) > MOST_REPLACEMENTS:
            minutes = self._patience.memory_seconds / 60
            self._give_up(
                f"The engine failed {len(self._replaced_at)} times within {minutes:g} minutes.",
                reason,
            )
        self.process = self._begin()
        self._tell(f"{type(reason).__name__}: {reason}")

    def close(self) -> None:
        """End the process for good."""
        self._end = "The engine was closed."
        self.process.end()

    def _begin(self) -> EngineProcess:
        return EngineProcess(self._start, self._patience.reap_seconds)

    def _load(self, tick: Tick) -> Exception | None:
        """Wait until the engine is loaded; return what keeps it from that."""
        process = self.process
        while process.facts is None:
            try:
                said = process.hear(BEAT_SECONDS)
            except EngineDied as death:
                return death
            if isinstance(said, Failed):
                return said.fault.error()
            if time.monotonic() - process.started_at > self._patience.start_seconds:
                seconds = self._patience.start_seconds
                return EngineStalled(f"The engine was not loaded within {seconds:g} s.")
            tick(0.0)
        self._facts = process.facts
        return None

    def _give_up(self, end: str, reason: Exception) -> NoReturn:
        self._end = end
        raise WorkerBroken(end) from reason


def _wait(fraction: float) -> None:
    """Take no interest: nobody waits for a first start but whoever asked for it."""
