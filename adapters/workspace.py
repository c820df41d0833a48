"""Directories for jobs, in which nothing outlives its job: neither its end nor a crash."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: A directory that is not yet locked has another name, so that no sweep takes it for left behind.
_NEW, _LENT = "new-", "job-"
#: Between the two lie microseconds.
ABANDONED_SECONDS = 60


class Workspaces:
    """Lend directories below one root, each locked for as long as its job lives."""

    def __init__(self, root: Path | None = None) -> None:
        """Lend below ``root``, by default this user's part of the temporary directory."""
        self._root = root or Path(tempfile.gettempdir()) / f"musetalk-worker-{os.getuid()}"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def __call__(self) -> Iterator[Path]:
        """Lend an empty directory that only this user can read."""
        new = Path(tempfile.mkdtemp(prefix=_NEW, dir=self._root))
        lock = os.open(new, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lent = new.rename(new.with_name(_LENT + new.name.removeprefix(_NEW)))
            try:
                yield lent
            finally:
                shutil.rmtree(lent, ignore_errors=True)
        finally:
            os.close(lock)

    def _abandoned(self) -> Iterator[Path]:
        """Yield what was made and never lent, once that is long ago."""
        for new in self._root.glob(f"{_NEW}*"):
            with suppress(FileNotFoundError):
                if time.time() - new.stat().st_mtime > ABANDONED_SECONDS:
                    yield new

    def sweep(self) -> None:
        """Remove what crashed workers left; what a living one uses is locked and stays."""
        for left in (*self._root.glob(f"{_LENT}*"), *self._abandoned()):
            with suppress(FileNotFoundError):
                lock = os.open(left, os.O_RDONLY)
                try:
                    with suppress(BlockingIOError):
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(left, ignore_errors=True)
                finally:
                    os.close(lock)
