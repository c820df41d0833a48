"""An engine whose jobs say, in their metadata, what befalls them; and the test's end of that.

``call`` is the port of a :class:`Stage`: the engine rings there and films when the test hangs up.
``fate`` is what comes next: ``fault``, an exception that nobody foresaw, or ``break``, a lost GPU.
"""

from __future__ import annotations

import select
import socket
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from handler.errors import WorkerBroken
from handler.ports import Avatar, Clip, Engine, Runtime, Scene
from handler.progress import Tick

HOST = "127.0.0.1"
#: Longer than anything here takes; who waits that long waits for ever.
PATIENCE_SECONDS = 30.0
#: How fast frames come from an engine that is kept waiting.
FRAME_SECONDS = 0.01


def steered(runtime: Runtime) -> Runtime:
    """Return the runtime with its engine steered."""
    return replace(runtime, engine=SteeredEngine(runtime.engine))


@dataclass(frozen=True, slots=True)
class SteeredEngine:
    """Films as another engine does, unless it is told otherwise."""

    engine: Engine[Any]

    def prepare(self, scene: Scene, tick: Tick) -> Avatar:
        avatar: Avatar = self.engine.prepare(scene, tick)
        return avatar

    def animate(self, avatar: Avatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        told = scene.job.metadata
        if "call" in told:
            _wait_on_stage(int(str(told["call"])), tick)
        if told.get("fate") == "fault":
            raise ZeroDivisionError("a mouth of no width")
        if told.get("fate") == "break":
            raise WorkerBroken("CUDA error: device-side assert triggered")
        return self.engine.animate(avatar, scene, target, tick)


def _wait_on_stage(port: int, tick: Tick) -> None:
    """Say that the film is all but done, take it back bit by bit, until the test hangs up."""
    with socket.create_connection((HOST, port)) as line:
        for frame in range(int(PATIENCE_SECONDS / FRAME_SECONDS)):
            if select.select([line], [], [], FRAME_SECONDS)[0]:
                return
            tick(1 / (1 + frame))
        raise TimeoutError("nobody hung up")


class Stage:
    """Where engines ring that wait for leave to go on."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def directions(self) -> dict[str, int]:
        """Return what the metadata says of a job that is to wait here."""
        return {"call": self._listener.getsockname()[1]}

    def await_engine(self) -> Held:
        """Wait until the engine has come to a job."""
        line, _ = self._listener.accept()
        line.settimeout(PATIENCE_SECONDS)
        return Held(line)


@dataclass(frozen=True, slots=True)
class Held:
    """A job that the engine has in hand."""

    line: socket.socket

    def go_on(self) -> None:
        """Let the engine film."""
        self.line.close()

    def await_end(self) -> None:
        """Wait until the engine has let go of the job, without leave."""
        with closing(self.line) as line:
            assert line.recv(1) == b""
