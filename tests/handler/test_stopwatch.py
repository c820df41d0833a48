import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import Stage, handle
from handler.ports import AudioInfo, Runtime
from handler.stopwatch import Stopwatch
from handler.testing import (
    FAKE_FILES,
    FakeClock,
    FakeEngine,
    FakeFetch,
    FakeProbe,
    MemoryStore,
    fake_runtime,
)

MEDIA = dict(zip(("video_url", "audio_url"), FAKE_FILES, strict=True))
ORDER = list(Stage)[:-1]
#: Seconds; the longest job of such steps is still within the worker's time limit.
times = st.floats(0.01, 200)


@dataclass
class SlowProbe(FakeProbe):
    clock: FakeClock | None = None
    seconds: float = 0.0

    def voice(self, path: Path) -> AudioInfo:
        self.clock.advance(self.seconds)
        return super().voice(path)


def slow(clock: FakeClock, seconds: float, port: Callable[..., Any]) -> Callable[..., Any]:
    def take_time(*args: Any) -> Any:
        clock.advance(seconds)
        return port(*args)

    return take_time


def slow_runtime(*, fetch: float, probe: float, engine: float, store: float) -> Runtime:
    clock = FakeClock()
    return fake_runtime(
        clock=clock,
        fetch=slow(clock, fetch, FakeFetch(FAKE_FILES)),
        probe=SlowProbe(clock=clock, seconds=probe),
        engine=FakeEngine(clock=clock, seconds=engine),
        store=slow(clock, store, MemoryStore()),
    )


def test_each_stage_is_charged_what_it_took(job: dict[str, Any]) -> None:
    runtime = slow_runtime(fetch=3, probe=0.5, engine=40, store=7)

    metrics = handle(job, runtime).metrics

    assert metrics.stage_times == {
        "download": 6,
        "validation": 0.5,
        "inference": 80,
        "upload": 7,
    }
    assert metrics.total_time == 93.5
    assert metrics.script_wall_time_sec == 80
    assert metrics.generation_time_sec == 40


@given(fetch=times, probe=times, engine=times, store=times)
def test_the_stages_of_a_job_add_up_to_the_whole(
    fetch: float, probe: float, engine: float, store: float
) -> None:
    runtime = slow_runtime(fetch=fetch, probe=probe, engine=engine, store=store)

    metrics = handle(MEDIA, runtime).metrics

    assert sum(metrics.stage_times.values()) == pytest.approx(metrics.total_time, rel=0.02)


def test_the_stages_add_up_on_a_real_clock_too(job: dict[str, Any]) -> None:
    many_frames = FakeEngine(frames=50_000)
    runtime = fake_runtime(clock=time.perf_counter, engine=many_frames)

    metrics = handle(job, runtime).metrics

    assert metrics.total_time > 0
    assert sum(metrics.stage_times.values()) == pytest.approx(metrics.total_time, rel=0.02)


def test_a_watch_knows_only_the_stages_that_were_closed() -> None:
    clock = FakeClock()
    watch = Stopwatch(clock)

    clock.advance(2)
    watch.enter(Stage.VALIDATION)
    clock.advance(3)

    assert watch.seconds == {"download": 2}
    assert watch.stage is Stage.VALIDATION
    assert watch.total == 2
    assert watch.elapsed == 5


def test_a_watch_does_not_count_the_time_before_it_was_started() -> None:
    clock = FakeClock()
    clock.advance(1_000_000)
    watch = Stopwatch(clock)

    clock.advance(2)
    watch.finish()

    assert watch.seconds == {"download": 2}
    assert watch.total == 2


@given(laps=st.lists(times, min_size=len(ORDER), max_size=len(ORDER)))
def test_no_second_is_lost_between_two_stages(laps: list[float]) -> None:
    clock = FakeClock()
    watch = Stopwatch(clock)

    for stage, lap in zip(ORDER, laps, strict=True):
        watch.enter(stage)
        clock.advance(lap)
    watch.finish()

    assert watch.total == pytest.approx(sum(laps))
    assert sum(watch.seconds.values()) == pytest.approx(watch.total, abs=0.001)
    assert list(watch.seconds) == ["download", "validation", "inference", "upload"]
