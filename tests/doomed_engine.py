"""An engine that meets the fate its job names: ``{"metadata": {"fate": "segfault"}}``.

Its start functions can be pickled, for the engine is to live in a process of its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

from adapters.config import ConfigError
from adapters.supervision.loaded import CheckedEngine, EngineFacts
from handler.errors import FaceNotFound, OutOfMemory, Stage, StoreFailed, WorkerBroken
from handler.ports import Clip, Scene
from handler.progress import Tick
from handler.testing import FakeAvatar, FakeEngine

#: So much memory takes a moment to be given back.
HEAVY_BYTES = 400_000_000
#: More than any system's ``pthread_mutex_t`` has.
MUTEX_BYTES = 128


def start(**rooms: Any) -> tuple[CheckedEngine[Any], EngineFacts]:
    """Load the engine."""
    return DoomedEngine(**rooms), EngineFacts("doomed", "none", "a device without a future")


def start_only_once(mark: Path) -> tuple[CheckedEngine[Any], EngineFacts]:
    """Load the engine, and never again."""
    mark.touch(exist_ok=False)
    return start()


def start_badly(fate: str) -> Never:
    """Say so and meet a fate before there is an engine."""
    sys.stderr.write(f"{fate}\n")
    sys.stderr.flush()
    FATES[fate](_ignore)
    raise AssertionError(fate)


def start_with_a_wrong_setting() -> Never:
    """Complain."""
    raise ConfigError("MUSETALK_WEIGHTS_DIR=/nowhere is empty.")


class DoomedEngine(FakeEngine):
    """Films as a fake engine does, unless its job has a fate."""

    def __init__(self) -> None:
        super().__init__()
        self._checks: Callable[[Tick], None] = _live
        self._faces: list[weakref.ref[FakeAvatar]] = []

    def prepare(self, scene: Scene, tick: Tick) -> FakeAvatar:
        """Return a face that says how many others there are."""
        FATES[str(scene.job.metadata.get("in_prepare", "live"))](tick)
        others = sum(face() is not None for face in self._faces)
        face = replace(super().prepare(scene, tick), warnings=(f"{others} others",))
        self._faces.append(weakref.ref(face))
        return face

    def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        """Tick, then meet the fate."""
        told = scene.job.metadata
        self._checks = FATES[str(told.get("in_check", "live"))]
        tick(0.25)
        if "until" in told:
            _wait_for(Path(str(told["until"])), tick)
        FATES[str(told.get("fate", "live"))](tick)
        return super().animate(avatar, scene, target, tick)

    def check(self) -> None:
        """Do as the last job said."""
        self._checks(_ignore)


def _live(tick: Tick) -> None:
    pass


def _ignore(fraction: float) -> None:
    pass


def _wait_for(file: Path, tick: Tick) -> None:
    while not file.exists():
        time.sleep(0.01)
        tick(0.5)


def _segfault(tick: Tick) -> None:
    ctypes.string_at(0)


def _killed(tick: Tick) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(tick: Tick) -> None:
    threading.Event().wait()


def _heavy_hang(tick: Tick) -> None:
    weight = b"\1" * HEAVY_BYTES
    threading.Event().wait()
    del weight


def _wedged(tick: Tick) -> None:
    # In C, with the interpreter's lock: as a driver that waits for a GPU which is gone.
    mutex = ctypes.create_string_buffer(MUTEX_BYTES)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)


def _told_to_stop(tick: Tick) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.killpg(0, number)


def _lost_gpu(tick: Tick) -> None:
    raise WorkerBroken("CUDA error: device-side assert triggered")


def _out_of_host_memory(tick: Tick) -> None:
    raise MemoryError


def _out_of_gpu_memory(tick: Tick) -> None:
    raise OutOfMemory("Not even one frame fits.")


def _bug(tick: Tick) -> None:
    raise KeyError("mouth")


def _faceless(tick: Tick) -> None:
    raise FaceNotFound("No face anywhere.", stage=Stage.VALIDATION, frames=7)


def _final(tick: Tick) -> None:
    raise StoreFailed("Full for ever.", retryable=False, strange=object())


def _deaf(tick: Tick) -> None:
    while True:
        try:
            tick(0.5)
        except Exception:  # noqa: BLE001 - whatever it is, it is not heard
            _hang(tick)


FATES: dict[str, Callable[[Tick], None]] = {
    "live": _live,
    "segfault": _segfault,
    "killed": _killed,
    "exit": lambda _: sys.exit(3),
    "exit at once": lambda _: os._exit(4),
    "hang": _hang,
    "heavy hang": _heavy_hang,
    "wedged": _wedged,
    "told to stop": _told_to_stop,
    "lost gpu": _lost_gpu,
    "out of host memory": _out_of_host_memory,
    "out of gpu memory": _out_of_gpu_memory,
    "bug": _bug,
    "faceless": _faceless,
    "final": _final,
    "deaf": _deaf,
}
