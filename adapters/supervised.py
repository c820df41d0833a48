"""An engine in a process of its own: a crash, a hang or a lost GPU costs one job, not the worker.

The worker asks for one thing at a time, listens, and calls the job's tick whether or not it hears
anything. A process that ends, falls silent, loses its GPU, or fails the check after an error is
killed and replaced; the next job waits for the new one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import finalize

from adapters.supervision.fault import Fault
from adapters.supervision.loaded import EngineFacts, Start
from adapters.supervision.messages import (
    Animate,
    Check,
    Checked,
    Failed,
    Filmed,
    Prepare,
    Prepared,
    Said,
    Ticked,
)
from adapters.supervision.patience import BEAT_SECONDS, Patience
from adapters.supervision.process import EngineProcess
from adapters.supervision.succession import Succession, Tell
from handler.errors import EngineBroken, EngineDied, EngineStalled, WorkerBroken
from handler.ports import Clip, Scene
from handler.progress import Tick
from handler.result import CacheUse


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class DistantAvatar:
    """Tell what is known of a face that stays in the engine's process."""

    home: EngineProcess
    number: int
    cache: CacheUse
    warnings: tuple[str, ...]
    engine_seconds: Mapping[str, float]


class SupervisedEngine:
    """Implement the core's ``Engine`` for one that lives in another process."""

    def __init__(
        self, start: Start, patience: Patience | None = None, tell: Tell = lambda _: None
    ) -> None:
        """Load an engine with ``start``, which is pickled, and wait for it.

        ``tell`` is told of each process that takes another's place, and why.

        Raises what ``start`` raises, :class:`EngineDied` if its process ends and
        :class:`EngineStalled` if it takes too long.
        """
        self._patience = patience or Patience()
        self._turn = threading.Lock()
        self._succession = Succession(start, self._patience, tell)

    @property
    def facts(self) -> EngineFacts:
        """Return what the engine is."""
        return self._succession.facts

    @property
    def pid(self) -> int:
        """Return the number of the process that the engine lives in now."""
        return self._succession.process.pid

    def prepare(self, scene: Scene, tick: Tick) -> DistantAvatar:
        """Make the face ready, where it stays; it is let go when nobody refers to it any more.

        Raises what the engine raises, by type, or what ``tick`` raises; :class:`EngineDied`,
        :class:`EngineStalled` or :class:`EngineBroken` if the engine had to be replaced, and
        :class:`WorkerBroken` if that has happened too often.
        """
        with self._my_turn(tick) as process:
            return self._prepare(process, scene, tick)

    def animate(self, avatar: DistantAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        """Write the talking face to ``target``; raises as :meth:`prepare` does."""
        with self._my_turn(tick) as process:
            if avatar.home is not process:
                # Another job has had the process replaced, and this one's face went with it.
                avatar = self._prepare(process, scene, lambda _: tick(0.0))
            _, filmed = self._ask(process, Animate(avatar.number, scene, target), tick)
        assert isinstance(filmed, Filmed)
        return filmed.clip

    def close(self) -> None:
        """End the engine's process; no further call is answered."""
        self._succession.close()

    @contextmanager
    def _my_turn(self, tick: Tick) -> Iterator[EngineProcess]:
        while not self._turn.acquire(timeout=BEAT_SECONDS):
            tick(0.0)
        try:
            yield self._succession.ready(tick)
        finally:
            self._turn.release()

    def _prepare(self, process: EngineProcess, scene: Scene, tick: Tick) -> DistantAvatar:
        number, ready = self._ask(process, Prepare(scene), tick)
        assert isinstance(ready, Prepared)
        avatar = DistantAvatar(process, number, ready.cache, ready.warnings, ready.engine_seconds)
        finalize(avatar, process.forget, number).atexit = False
        return avatar

    def _ask(
        self, process: EngineProcess, wanted: Prepare | Animate, tick: Tick
    ) -> tuple[int, Said]:
        """Have something done; return the number of the call and its answer."""
        try:
            number = process.call(wanted)
            answer = self._answer(process, number, tick)
        except (EngineDied, EngineStalled) as error:
            self._succession.replace(error)
            raise
        if isinstance(answer, Failed):
            raise self._settle(process, answer.fault)
        return number, answer

    def _answer(self, process: EngineProcess, number: int, tick: Tick) -> Said:
        """Wait for the end of a call; end it if its job ends before, by a tick or by a signal."""
        try:
            return self._listen(process, tick)
        except (EngineDied, EngineStalled):
            raise
        except BaseException:
            self._stop(process, number)
            raise

    def _listen(self, process: EngineProcess, tick: Tick) -> Said:
        """Listen to a call until its end, and call its job's tick meanwhile."""
        fraction, heard_at = 0.0, time.monotonic()
        while True:
            said = process.hear(BEAT_SECONDS)
            now = time.monotonic()
            if isinstance(said, Ticked):
                fraction, heard_at = said.fraction, now
            elif said is not None:
                return said
            elif now - heard_at > self._patience.stall_seconds:
                raise EngineStalled(
                    f"The engine gave no sign of life for {self._patience.stall_seconds:g} s."
                )
            tick(fraction)

    def _stop(self, process: EngineProcess, number: int) -> None:
        """End a call that nobody wants any more, with its process if there is no other way."""
        process.stop(number)
        reason = self._reason_to_replace(process)
        process.forget(number)
        if reason:
            # The job has an error of its own; the next one hears of a worker that is broken.
            with suppress(WorkerBroken):
                self._succession.replace(reason)

    def _reason_to_replace(self, process: EngineProcess) -> Exception | None:
        """Return why a process that was told to end its call can do no other; None if it can."""
        try:
            answer = process.answer(self._patience.stop_seconds)
        except EngineDied as death:
            return death
        if answer is None:
            return EngineStalled("The engine did not let go of a job that was taken back.")
        if isinstance(answer, Failed) and answer.fault.broken:
            return answer.fault.error()
        return None

    def _settle(self, process: EngineProcess, fault: Fault) -> Exception:
        """Return the error of a call, once it is certain that there is an engine for the next.

        Raises :class:`WorkerBroken` if there is not.
        """
        error = fault.error()
        if fault.broken:
            broken = EngineBroken(fault.message)
            broken.__cause__ = error
            error = broken
        if fault.broken or not (fault.blameless or self._sound(process)):
            self._succession.replace(error)
        return error

    def _sound(self, process: EngineProcess) -> bool:
        """Tell whether the engine still works after an error."""
        try:
            process.call(Check())
            return isinstance(process.answer(self._patience.check_seconds), Checked)
        except EngineDied:
            return False
