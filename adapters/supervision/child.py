"""The engine's side: load it, do what is asked, and die with the worker.

Run as ``python -m adapters.supervision.child PIPE LEASH LIFELINE``, the descriptors that it was
given.
"""

from __future__ import annotations

import fcntl
import math
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from adapters.supervision.fault import Fault
from adapters.supervision.loaded import CheckedEngine
from adapters.supervision.messages import (
    Animate,
    Answer,
    Call,
    Check,
    Checked,
    Failed,
    Filmed,
    Forget,
    Prepare,
    Prepared,
    Said,
    Started,
    Stop,
    Ticked,
)
from handler.errors import Cancelled

#: Nobody looks at more than twenty ticks a second.
TICK_SECONDS = 0.05


def main(
    pipe: Connection[Any, Any], leash: Connection[Any, Any], lifeline: Connection[Any, Any]
) -> None:
    """Load the engine that the first message starts, then do what is asked until the end."""
    _hang_on(lifeline.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave_to_the_worker)
    desk = Desk(pipe)
    threading.Thread(target=desk.heed, args=(leash,), daemon=True).start()
    try:
        engine, facts = pipe.recv()()
    except Exception as error:  # noqa: BLE001 - whatever it is, the worker must know
        pipe.send(Failed(Fault.of(error)))
    else:
        pipe.send(Started(facts))
        # Without the worker there is nothing more to do.
        with suppress(EOFError):
            desk.serve(engine)


class Desk:
    """Take one call after the other, and heed meanwhile what the worker says of them."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe = pipe
        #: What runs, and what was told to end; calls are numbered from 1.
        self._running = self._stopped = 0
        self._ticked_at = -math.inf
        #: Faces that were made ready, by the call that did so.
        self._faces: dict[int, Any] = {}
        # An engine of several threads may tick in each.
        self._sending = threading.Lock()

    def serve(self, engine: CheckedEngine[Any]) -> None:
        """Do what is asked; raise :class:`EOFError` when nobody is there to ask."""
        while True:
            call: Call = self._pipe.recv()
            self._running, self._ticked_at = call.number, -math.inf
            self._send(self._answer(engine, call))

    def heed(self, leash: Connection[Any, Any]) -> None:
        """Stop calls and forget faces; when the worker is gone, so is all of this group."""
        try:
            while True:
                said = leash.recv()
                if isinstance(said, Stop):
                    self._stopped = said.number
                elif isinstance(said, Forget):
                    self._faces.pop(said.number, None)
        finally:
            os.killpg(0, signal.SIGKILL)

    def _answer(self, engine: CheckedEngine[Any], call: Call) -> Answer:
        try:
            match call.wanted:
                case Prepare(scene):
                    face = engine.prepare(scene, self._tick)
                    self._faces[call.number] = face
                    return Prepared(face.cache, face.warnings, dict(face.engine_seconds))
                case Animate(number, scene, target):
                    face = self._faces[number]
                    return Filmed(engine.animate(face, scene, target, self._tick))
                case Check():
                    engine.check()
                    return Checked()
        except Exception as error:  # noqa: BLE001 - it crosses over to the job
            return Failed(Fault.of(error))

    def _tick(self, fraction: float) -> None:
        if self._stopped == self._running:
            raise Cancelled("The worker has no more use for this.")
        now = time.monotonic()
        if fraction >= 1 or now - self._ticked_at >= TICK_SECONDS:
            self._ticked_at = now
            self._send(Ticked(fraction))

    def _send(self, said: Said) -> None:
        with self._sending:
            self._pipe.send(said)


def _hang_on(lifeline: int) -> None:
    """Have the system kill this group when the worker's end of a pipe is closed, however it ended.

    The thread at the leash cannot, while a driver that hangs holds the interpreter's lock.
    """
    # Other systems than Linux cannot either.
    with suppress(AttributeError, OSError):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)


def _leave_to_the_worker(number: int, frame: FrameType | None) -> None:
    """Do nothing: whoever stops the worker leaves it to the worker to end this process.

    Unlike a signal that is ignored, one that is handled is not ignored by ffmpeg as well.
    """


if __name__ == "__main__":
    main(*(Connection(int(descriptor)) for descriptor in sys.argv[1:]))
