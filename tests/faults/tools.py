"""ffmpeg and ffprobe, which do as they are told before they do what they are for."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.drive_http import PATIENCE_SECONDS

#: What tells the runs of these programs apart: encoding, and a look at what was encoded.
ENCODES, REVIEWS = "*libx264*", "*output.mp4*"


@dataclass(frozen=True)
class Tools:
    """The programs of a worker: they obey their orders, if there are any, before they work."""

    folder: Path

    @classmethod
    def install(cls, folder: Path) -> Self:
        """Put them into a folder, to be a worker's ``PATH``."""
        for name in ("ffmpeg", "ffprobe", "prlimit"):
            program = folder / name
            orders = f'PATH={os.environ["PATH"]}\n[ -e "$0.orders" ] && . "$0.orders"\n'
            program.write_text(f'#!/bin/sh\nREAL={shutil.which(name)}\n{orders}exec "$REAL" "$@"\n')
            program.chmod(0o755)
        return cls(folder)

    @contextmanager
    def ordered(self, name: str, script: str) -> Iterator[None]:
        """Have one of them do something else for a while."""
        orders = self.folder / f"{name}.orders"
        orders.write_text(script)
        yield
        orders.unlink()

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """Take one of them away for a while."""
        program = self.folder / name
        away = program.rename(program.with_suffix(".away"))
        yield
        away.rename(program)

    @contextmanager
    def held(self, name: str, words: str) -> Iterator[Callable[[], None]]:
        """Have one wait when it is given such words, and lend what waits for that."""
        reached = self.folder / f"{name}.reached"
        os.mkfifo(reached)
        bell = os.open(reached, os.O_RDONLY | os.O_NONBLOCK)

        def await_it() -> None:
            assert select.select([bell], [], [], PATIENCE_SECONDS)[0], "it was never run"

        wait = f'echo here > "{reached}"; while [ -e "$0.orders" ]; do sleep 0.02; done'
        try:
            with self.ordered(name, f'case "$*" in {words}) {wait};; esac'):
                yield await_it
        finally:
            os.close(bell)
            reached.unlink()
