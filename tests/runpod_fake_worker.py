"""A worker at RunPod's door whose engine is a fake that obeys the metadata of its jobs.

``until``: the engine keeps the job until this file exists; ``upload_until``: the store does.
``act``: ``break`` the GPU, ``exhaust`` the memory, ``nan`` for a result that is no JSON, ``swell``
for one that is too large.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from adapters.log import open_log
from adapters.runpod_sdk import import_sdk
from adapters.runpod_serverless import serve
from handler.errors import OutOfMemory, WorkerBroken
from handler.job import Job
from handler.ports import Clip, Fetched, Runtime, Scene, Stored
from handler.progress import Tick
from handler.testing import FAKE_FILES, FakeAvatar, FakeEngine, FakeFetch, fake_runtime

#: How fast frames come while a job is kept.
FRAME_SECONDS = 0.01
ENDLESS_VIDEO = "https://example.com/endless.mp4"


class ObedientEngine(FakeEngine):
    """Animates one job at a time, as the real one does, and as long as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Lock()
        self._broken = False

    def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        told = scene.job.metadata
        with self._my_turn(tick):
            if "until" in told:
                _keep(Path(str(told["until"])), tick)
            if self._broken or told.get("act") == "break":
                self._broken = True
                raise WorkerBroken("CUDA error: device-side assert triggered")
            if told.get("act") == "exhaust":
                raise OutOfMemory("Inference failed: CUDA out of memory")
            clip = super().animate(avatar, scene, target, tick)
        if told.get("act") == "nan":
            clip = replace(clip, peak_vram_mib=float("nan"))
        if told.get("act") == "swell":
            clip = replace(clip, warnings=("too much " * 1_200_000,))
        return clip

    @contextmanager
    def _my_turn(self, tick: Tick) -> Iterator[None]:
        while not self._turn.acquire(timeout=FRAME_SECONDS):
            tick(0.0)
        try:
            yield
        finally:
            self._turn.release()


def _keep(gate: Path, tick: Tick) -> None:
    frames = 0
    while not gate.exists():
        frames += 1
        tick(1 - 1 / (1 + frames * FRAME_SECONDS))
        time.sleep(FRAME_SECONDS)


class EndlessFetch(FakeFetch):
    """Fetches what a fake does, and one video that never ends."""

    def __call__(self, url: str, path: Path, tick: Tick) -> Fetched:
        if url == ENDLESS_VIDEO:
            _keep(Path("/never"), tick)
        return super().__call__(url, path, tick)


def store(path: Path, job: Job, tick: Tick) -> Stored:
    """Return the URL that the job brought, as a store does that was given a presigned one."""
    if "upload_until" in job.metadata:
        _keep(Path(str(job.metadata["upload_until"])), tick)
    target = job.output
    return Stored(target.get_url if target and target.get_url else "memory://video.mp4")


def runtime() -> Runtime:
    """Build the worker."""
    return fake_runtime(
        engine=ObedientEngine(),
        fetch=EndlessFetch(dict(FAKE_FILES)),
        store=store,
        clock=time.monotonic,
    )


if __name__ == "__main__":
    serve(import_sdk(), runtime, open_log())
