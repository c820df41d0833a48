"""A worker with a supervised engine whose jobs name their fate, and a look behind the scenes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from adapters.supervised import SupervisedEngine
from adapters.supervision.loaded import Start
from adapters.supervision.patience import Patience
from handler import Failure, Progress, Success, handle
from handler.errors import Cancelled
from handler.progress import Report, ignore
from handler.testing import FAKE_FILES, FakeWorkspace, fake_runtime
from tests import doomed_engine

PATIENT_SECONDS = 30
#: Nobody wants to wait for what is to take too long; what is to be done takes milliseconds.
HURRIED = Patience(
    stall_seconds=1.0, stop_seconds=0.5, check_seconds=1.0, reap_seconds=5.0, memory_seconds=0.0
)


class Stage:
    """A worker with a supervised engine, and a look behind the scenes."""

    def __init__(self, start: Start, patience: Patience) -> None:
        #: What an operator heard of processes that were replaced.
        self.told: list[str] = []
        self.engine = SupervisedEngine(start, patience, self.told.append)
        self.workspace = FakeWorkspace()
        self.runtime = fake_runtime(
            engine=self.engine, workspace=self.workspace, clock=time.monotonic
        )

    def run(
        self, report: Report = ignore, deadline_seconds: float | None = None, **told: str
    ) -> Success | Failure:
        """Do a job with such a fate."""
        video, audio = FAKE_FILES
        raw = {"video_url": video, "audio_url": audio, "metadata": told}
        return handle(raw | {"deadline_seconds": deadline_seconds}, self.runtime, report)

    def fail(self, report: Report = ignore, **told: Any) -> Failure:
        """Do a job that must fail."""
        result = self.run(report, **told)
        assert isinstance(result, Failure), result
        return result

    def does_a_good_job(self) -> bool:
        """Tell whether the worker has tidied up and is fit for the next job."""
        assert not any(place.exists() for place in self.workspace.lent)
        return isinstance(self.run(), Success)


OpenStage = Callable[..., Stage]


def wait_until_dead(pid: int) -> None:
    """Wait for the end of a process, which is left for the worker to learn of."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@contextmanager
def season() -> Iterator[OpenStage]:
    """Lend what opens workers; once they are closed, nothing of them is left."""
    before = set(psutil.Process().children())
    stages: list[Stage] = []

    def opened(start: Start = doomed_engine.start, patience: Patience = HURRIED) -> Stage:
        stages.append(Stage(start, patience))
        return stages[-1]

    yield opened

    for stage in stages:
        stage.engine.close()
        assert not any(place.exists() for place in stage.workspace.lent)
    assert set(psutil.Process().children()) == before


def cancelling(progress: Progress) -> None:
    """Take the job back as soon as its second half has begun."""
    if progress.fraction > 0.35:
        raise Cancelled("taken back")
