"""How long an engine's process may take for things."""

from __future__ import annotations

from dataclasses import dataclass

#: A job hears of itself this often, whatever its engine does: deadlines and cancels hold.
BEAT_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Say how long things may take, in seconds."""

    #: Between two ticks of a call. Four times what ffmpeg has, so that its errors come first, and
    #: well beyond the slowest step without a tick, a batch of frames on a CPU.
    stall_seconds: float = 120.0
    #: From a job's being taken back to the end of its call. Short enough for the answer to a job
    #: that has to end with the worker: the doors wait for 2.5 s and more.
    stop_seconds: float = 1.5
    #: A product of two small matrices.
    check_seconds: float = 10.0
    #: Loading, compiling and warming up.
    start_seconds: float = 900.0
    #: From SIGKILL to the end: a process that waits for a lost GPU may never get there.
    reap_seconds: float = 10.0
    #: How long a replacement is remembered.
    memory_seconds: float = 600.0
