"""A worker with a fake engine, in a process that meets its fate at a moment of its job.

``FATE=die MOMENT=upload`` in the environment has it killed once its first video is stored. It says
on stdout when the moment has come.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from adapters.config import Config
from adapters.local_worker import main
from handler import Job, Runtime, WorkerBroken
from handler.ports import AudioInfo, Clip, Fetched, Scene, Stored
from handler.progress import Tick
from handler.result import Output
from handler.testing import FakeAvatar, FakeEngine, FakeProbe, fake_runtime
from tests.drive_poll_loop import BRISK

#: The moments of a job, in their order.
MOMENTS = ("download", "validation", "preprocessing", "inference", "postprocessing", "upload")

Meet = Callable[[str], None]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stall() -> None:
    threading.Event().wait()


def _break() -> None:
    raise WorkerBroken("the GPU fell off the bus")


def _await() -> None:
    sys.stdin.readline()


def _linger() -> None:
    """Go on, in more frames than anybody has time for."""


FATES: dict[str, Callable[[], None]] = {
    "die": _die,
    "stall": _stall,
    "break": _break,
    "await": _await,
    "linger": _linger,
}


class Engine(FakeEngine):
    meet: Meet

    def prepare(self, scene: Scene, tick: Tick) -> FakeAvatar:
        self.meet("preprocessing")
        return super().prepare(scene, tick)

    def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        self.meet("inference")
        return super().animate(avatar, scene, target, tick)


class Probe(FakeProbe):
    meet: Meet

    def voice(self, path: Path) -> AudioInfo:
        self.meet("validation")
        return super().voice(path)

    def output(self, path: Path) -> Output:
        self.meet("postprocessing")
        return super().output(path)


def doomed_runtime(meet: Meet, frames: int) -> Runtime:
    """Build a runtime of fakes that calls ``meet`` at each moment, before any job at start."""
    meet("start")
    plain = fake_runtime()

    def fetch(url: str, path: Path, tick: Tick) -> Fetched:
        meet("download")
        return plain.fetch(url, path, tick)

    def store(path: Path, job: Job, tick: Tick) -> Stored:
        stored = plain.store(path, job, tick)
        meet("upload")
        return stored

    engine, probe = Engine(frames=frames), Probe()
    engine.meet = probe.meet = meet
    return fake_runtime(fetch=fetch, store=store, engine=engine, probe=probe)


if __name__ == "__main__":
    fate, when = os.environ.get("FATE", ""), os.environ.get("MOMENT")

    def meet(here: str) -> None:
        if here == when:
            sys.stdout.write(f"{here}\n")
            sys.stdout.flush()
            FATES[fate]()

    runtime = partial(doomed_runtime, meet, 10**9 if fate == "linger" else 25)
    sys.exit(main(Config.from_env(os.environ), runtime, BRISK))
