"""The worker's side: a process with an engine in it, from its start to its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from adapters.supervision.loaded import EngineFacts, Start
from adapters.supervision.messages import (
    Animate,
    Call,
    Check,
    Forget,
    Prepare,
    Said,
    Started,
    Stop,
    Ticked,
)
from handler.errors import EngineDied

MODULE = "adapters.supervision.child"
#: What an engine prints must not end up among a command's results.
STDERR = 2
#: Variables of these names hold what only the worker needs.
SECRET = re.compile("KEY|SECRET|TOKEN|PASS|CREDENTIAL|AUTH|HEADERS|DSN|PROXY")
#: A process that closed its end of the pipe has a moment to end by itself, and say how.
LAST_MOMENT_SECONDS = 2.0


class EngineProcess:
    """Hold a process in which an engine is loaded, then does one call at a time."""

    def __init__(self, start: Start, reap_seconds: float) -> None:
        """Begin to load; wait ``reap_seconds`` for the process to be gone once it is killed."""
        self._pipe, theirs = Pipe()
        their_leash, self._leash = Pipe(duplex=False)
        their_lifeline, lifeline = Pipe(duplex=False)
        with theirs, their_leash, their_lifeline:
            ends = (theirs, their_leash, their_lifeline)
            self._process = _started(*(end.fileno() for end in ends))
        self._pipes = (self._pipe, self._leash, lifeline)
        self._reap_seconds = reap_seconds
        # When nobody remembers it, and when the worker ends.
        weakref.finalize(self, _end, self._process, self._pipes, reap_seconds)
        self._numbers = count(1)
        self.started_at = time.monotonic()
        #: None until the engine is loaded.
        self.facts: EngineFacts | None = None
        # One that is dead already is noticed as soon as it is listened to.
        with suppress(OSError):
            self._pipe.send(start)

    @property
    def pid(self) -> int:
        """Return its number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Tell whether it has not ended."""
        return self._process.poll() is None

    def call(self, wanted: Prepare | Animate | Check) -> int:
        """Ask for something; return the number of the call.

        Raises :class:`EngineDied`.
        """
        number = next(self._numbers)
        try:
            self._pipe.send(Call(number, wanted))
        except OSError as error:
            raise self.death() from error
        return number

    def hear(self, seconds: float) -> Said | None:
        """Return what it says next; None if it says nothing for so many seconds.

        Raises :class:`EngineDied`.
        """
        try:
            said: Said | None = self._pipe.recv() if self._pipe.poll(seconds) else None
        except (EOFError, OSError) as error:
            raise self.death() from error
        if isinstance(said, Started):
            self.facts = said.facts
        return said

    def answer(self, seconds: float) -> Said | None:
        """Return how a call ends; None if that takes more than so many seconds.

        Raises :class:`EngineDied`.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            said = self.hear(left)
            if not isinstance(said, Ticked):
                return said
        return None

    def stop(self, number: int) -> None:
        """Have a call end at its next tick."""
        self._pull(Stop(number))

    def forget(self, number: int) -> None:
        """Let go of the face that a call made ready; safe wherever garbage is collected."""
        self._pull(Forget(number))

    def end(self) -> None:
        """Kill it; raise :class:`subprocess.TimeoutExpired` if it is not gone in time."""
        _end(self._process, self._pipes, self._reap_seconds)

    def death(self) -> EngineDied:
        """Return the error that says how it ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LAST_MOMENT_SECONDS)
        code = self._process.returncode
        if code is None:
            return EngineDied("The engine's process hung up.")
        if code >= 0:
            message = f"The engine's process ended with exit code {code}."
            return EngineDied(message, exit_code=code)
        name = signal.Signals(-code).name
        hint = ": often the machine had no memory left" if -code == signal.SIGKILL else ""
        message = f"The engine's process was ended by {name}{hint}."
        return EngineDied(message, signal=name)

    def _pull(self, said: Stop | Forget) -> None:
        # To one that has ended there is nothing to say.
        with suppress(OSError):
            self._leash.send(said)


def _started(*descriptors: int) -> subprocess.Popen[bytes]:
    # -P: nothing is imported from wherever the worker happens to have been started.
    flags = ("-P", "-X", "faulthandler")
    return subprocess.Popen(
        [sys.executable, *flags, "-m", MODULE, *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        stdout=STDERR,
        env=_environment(),
        pass_fds=descriptors,
        # Out of reach of Ctrl-C, and in a group that can be killed as a whole.
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    harmless = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
    return harmless | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}


def _end(
    process: subprocess.Popen[bytes], pipes: tuple[Connection[Any, Any], ...], seconds: float
) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for pipe in pipes:
        pipe.close()
    process.wait(seconds)
