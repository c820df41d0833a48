"""A worker to be run as a process, whose engine does what it is told over standard input.

Its words are ``load``, on which the engine is there, and ``finish``, on which jobs end. Its
argument says how the engine is: ``obedient``, or ``hung``, which does not ask whether its job is
still wanted.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from adapters.config import Config
from adapters.http_server import serve
from handler import Runtime
from handler.ports import Clip
from handler.testing import FakeEngine, fake_runtime

WORDS = {"load": threading.Event(), "finish": threading.Event()}


class ToldEngine(FakeEngine):
    """Ends a job when told to."""

    def __init__(self, *, hung: bool) -> None:
        super().__init__()
        self._tick_seconds = None if hung else 0.02

    def animate(self, avatar: Any, scene: Any, target: Any, tick: Any) -> Clip:
        while not WORDS["finish"].wait(self._tick_seconds):
            tick(0.5)
        return super().animate(avatar, scene, target, tick)


def listen() -> None:
    for line in sys.stdin:
        WORDS[line.strip()].set()


def load() -> Runtime:
    WORDS["load"].wait()
    return fake_runtime(engine=ToldEngine(hung="hung" in sys.argv))


if __name__ == "__main__":
    threading.Thread(target=listen, daemon=True).start()
    serve(Config.from_env(os.environ), load)
