"""What is measured on a GPU, with what, and how long that may take in all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch

from bench.networks import FULL, TINY, Size
from bench.passes import Work
from bench.report import Report
from inference.musetalk.device import Device

#: Stretches of calls of which the median counts, and calls before the first.
STRETCHES, WARM_UPS = 3, 2
#: Matrix products that count as one call.
PRODUCTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Say how large everything is."""

    size: Size
    #: A worker's own batch, and all that the generator is timed with.
    batch: int
    batches: Sequence[int]
    #: Those that it is compiled for, what matters most first.
    compiled: Sequence[int]
    #: Calls to a stretch.
    calls: int
    matrix_side: int
    #: A film in memory: frames, width, height.
    reel: tuple[int, int, int]
    #: Clips of whole jobs, (width, height), and their length.
    clips: Sequence[tuple[int, int]]
    clip_seconds: float


ON_GPU = Plan(
    size=FULL,
    batch=8,
    batches=(4, 8, 16, 32),
    compiled=(8, 16, 32, 4),
    calls=8,
    matrix_side=8192,
    reel=(512, 1280, 720),
    clips=((1280, 720), (1920, 1080)),
    clip_seconds=20,
)
#: As much as it takes to know that every part runs.
ON_CPU = Plan(
    size=TINY,
    batch=2,
    batches=(1, 2),
    compiled=(2,),
    calls=1,
    matrix_side=1024,
    reel=(6, 512, 512),
    clips=((512, 512),),
    clip_seconds=0.4,
)


@dataclass(frozen=True, slots=True)
class Stand:
    """Hold what every part of the measurement needs."""

    report: Report
    device: Device
    plan: Plan
    scratch: Path
    seconds: float
    _began: float = field(default_factory=time.monotonic)

    @property
    def seconds_left(self) -> float:
        """Tell how much time is left of ``seconds``."""
        return self.seconds - (time.monotonic() - self._began)

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device.is_cuda:
            torch.cuda.synchronize(self.device.place)

    def once(self, work: Work) -> float:
        """Return the seconds of one call, the first."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def steady(self, work: Work) -> float:
        """Return the seconds of a call where call follows call, as in a job."""
        calls = self.plan.calls
        with torch.inference_mode():
            for _ in range(WARM_UPS):
                work()
            stretch = [self.once(lambda: [work() for _ in range(calls)]) for _ in range(STRETCHES)]
        return median(stretch) / calls

    def matrix_tflops(self) -> float:
        """Return what the device reaches where nothing is in the way: one large matrix product."""
        side = self.plan.matrix_side
        left, right = (torch.randn(side, side) for _ in range(2))
        left, right = (m.to(self.device.place, self.device.dtype) for m in (left, right))
        # One alone is over before the clocks of an idle card have risen.
        taken = self.steady(lambda: [left @ right for _ in range(PRODUCTS)])
        return PRODUCTS * 2 * side**3 / taken / 1e12

    def share(self, gflops: float, tflops: float) -> str:
        """Put a rate in words, as a share of the device's own; off a GPU it would say nothing."""
        return f"{gflops / 1000 / tflops:.0%}" if self.device.is_cuda else ""
