"""Which job is in hand, on disk: a job that kills its worker is not given one worker after another.

An entry is a small file, locked for as long as its job is in hand and removed at its end. The
system drops the locks of a process that is gone: an entry whose lock can be taken tells of a job
that killed a worker, or an engine that had a process of its own. Nothing is flushed to the disk,
which keeps what a killed process wrote.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from handler.errors import EngineBroken, EngineDied, EngineStalled, PoisonJob, Stage
from handler.ports import Note, note_nothing

#: A job that killed so many workers is not tried again,
KILLS = 2
#: for so long: who kills a worker a day may as well have stood beside when it died.
FORGOTTEN_SECONDS = 24 * 3600

#: What a job ends with that cost the engine its process, and would have cost the worker its own.
DEADLY = (EngineDied, EngineStalled, EngineBroken)

#: More than any entry needs. All are this long, so that one is written over another in one step.
ENTRY_BYTES = 1024
#: Characters of a job's id in its entry, for a person's eyes.
ID_CHARACTERS = 200
#: Another file by the same name came and went in between; more often than that is no accident.
OPEN_TRIES = 5

#: Its content differs between machines, and before and after a machine's restart.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class DiskJournal:
    """Notes the job in hand in a directory, which workers may share: the port ``Journal``.

    A directory that cannot be written costs the journal, never a job.
    """

    def __init__(self, directory: Path, wall_clock: Callable[[], float] = time.time) -> None:
        """Write below ``directory``; ``wall_clock`` tells the age of what is found there."""
        self._directory = directory
        self._wall_clock = wall_clock
        with suppress(OSError):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()

    @contextmanager
    def __call__(self, job_id: str) -> Iterator[Note]:
        """Note a job while it is in hand; raise :class:`PoisonJob` if it killed too many workers.

        A job that somebody else has in hand as well is noted there, and not twice.
        """
        entry = self._open(job_id)
        if entry is None:
            yield note_nothing
            return
        with entry:
            kills, stage = entry.kills(self._wall_clock())
            if kills >= KILLS:
                raise PoisonJob(
                    f"The job killed its worker {kills} times, at last at stage {stage}: it is not"
                    " tried again.",
                    stage=stage,
                    times_killed=kills,
                )
            stays = False
            try:
                yield lambda stage: entry.note(job_id, kills, stage)
            except DEADLY:
                # As if the process that is gone had been this one.
                stays = True
                raise
            finally:
                if not stays:
                    entry.remove()

    def _open(self, job_id: str) -> _Entry | None:
        # An id may be longer than a file's name, and hold what no name can.
        name = hashlib.sha256(job_id.encode()).hexdigest()[:32]
        with suppress(OSError):
            return _Entry.open(self._directory / f"{name}.json")
        return None

    def _sweep(self) -> None:
        """Remove the entries that are forgotten."""
        for path in self._directory.glob("*.json"):
            with suppress(OSError):
                if self._wall_clock() - path.stat().st_mtime > FORGOTTEN_SECONDS:
                    path.unlink()


@dataclass(frozen=True, slots=True)
class _Entry:
    """The entry of one job, open and locked."""

    path: Path
    file: int

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an entry, new or left behind; raise :class:`OSError` if somebody has it."""
        for _ in range(OPEN_TRIES):
            entry = cls(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            try:
                fcntl.flock(entry.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Else its job came to an end between the two.
                if os.fstat(entry.file).st_nlink:
                    return entry
            except OSError:
                os.close(entry.file)
                raise
            os.close(entry.file)
        raise BlockingIOError

    def __enter__(self) -> None:
        """Keep it."""

    def __exit__(self, *_: object) -> None:
        """Unlock it."""
        os.close(self.file)

    def kills(self, now: float) -> tuple[int, Stage]:
        """Return how many workers the job killed of late, and at which stage the last of them.

        What another machine left says nothing: its locks end there, and so may it have.
        """
        try:
            told = json.loads(os.pread(self.file, ENTRY_BYTES, 0))
            killed = int(told["times_killed"]) + (told["boot_id"] == _boot_id())
            stage = Stage(told["stage"])
            age_seconds = now - os.fstat(self.file).st_mtime
        except (OSError, ValueError, KeyError, TypeError):
            return 0, Stage.UNKNOWN
        return (0, stage) if age_seconds > FORGOTTEN_SECONDS else (killed, stage)

    def note(self, job_id: str, kills: int, stage: Stage) -> None:
        """Write down how often the job has killed, and where it is now."""
        told = {
            "job_id": job_id[:ID_CHARACTERS],
            "times_killed": kills,
            "stage": stage.value,
            "pid": os.getpid(),
            "boot_id": _boot_id(),
        }
        with suppress(OSError):
            os.pwrite(self.file, json.dumps(told).encode().ljust(ENTRY_BYTES), 0)

    def remove(self) -> None:
        """Forget the job."""
        with suppress(OSError):
            self.path.unlink()


def _boot_id() -> str:
    with suppress(OSError):
        return BOOT_ID.read_text().strip()
    return ""
