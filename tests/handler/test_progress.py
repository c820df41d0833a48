from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import Cancelled, ErrorType, Phase, Progress, handle
from handler.ports import Fetched
from handler.progress import Reporter
from handler.testing import (
    FAKE_FILES,
    FakeClock,
    FakeEngine,
    FakeFetch,
    FakeWorkspace,
    fake_runtime,
)

#: Reports of a job of three frames before its last: two downloads, prepare, animate, store.
TICKS = 13
STEPS = [Phase.DOWNLOADING, Phase.INFERRING, Phase.ENCODING, Phase.UPLOADING]


@dataclass
class Listener:
    """Remembers what it was told, and takes the job back at one report if asked to."""

    refuses_at: int | None = None
    heard: list[Progress] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        self.heard.append(progress)
        if len(self.heard) - 1 == self.refuses_at:
            raise Cancelled("The caller took the job back.")

    @property
    def phases(self) -> list[str]:
        return [phase.value for phase, _ in groupby(self.heard, lambda told: told.phase)]

    @property
    def fractions(self) -> list[float]:
        return [told.fraction for told in self.heard]


def test_progress_is_told_in_the_words_that_callers_know() -> None:
    progress = Progress(Phase.INFERRING, 1 / 3)

    assert progress.to_json() == {"status": "running", "progress": 0.3333, "phase": "inferring"}


def test_a_good_job_goes_through_every_phase_in_order(job: dict[str, Any]) -> None:
    listener = Listener()

    handle(job, fake_runtime(), listener)

    assert listener.phases == ["downloading", "inferring", "encoding", "uploading", "completed"]


def test_progress_never_falls_and_reaches_one_only_at_the_end(job: dict[str, Any]) -> None:
    listener = Listener()

    handle(job, fake_runtime(), listener)

    assert all(earlier <= later for earlier, later in pairwise(listener.fractions))
    assert max(told.to_json()["progress"] for told in listener.heard[:-1]) < 1
    assert listener.heard[-1] == Progress(Phase.COMPLETED, 1.0)


def test_progress_moves_while_the_engine_runs(job: dict[str, Any]) -> None:
    listener = Listener()

    handle(job, fake_runtime(engine=FakeEngine(frames=100)), listener)

    inferring = {told.fraction for told in listener.heard if told.phase is Phase.INFERRING}
    assert len(inferring) > 99


def test_a_failed_job_ends_as_failed_where_it_stood(job: dict[str, Any]) -> None:
    listener = Listener()

    handle(job, fake_runtime(engine=FakeEngine(fault=ValueError("Broken."))), listener)

    last_tick, end = listener.heard[-2:]
    assert end == Progress(Phase.FAILED, last_tick.fraction)
    assert 0 < end.fraction < 1


def test_a_malformed_job_ends_as_failed_at_once() -> None:
    listener = Listener()

    handle({}, fake_runtime(), listener)

    assert listener.heard == [Progress(Phase.FAILED, 0.0)]


@given(
    ticks=st.lists(st.tuples(st.sampled_from(STEPS), st.floats(), st.floats(0, 1), st.floats(0, 1)))
)
def test_no_engine_can_make_progress_fall_or_end_early(
    ticks: list[tuple[Phase, float, float, float]],
) -> None:
    listener = Listener()
    reporter = Reporter(listener, lambda: None)

    for phase, fraction, start, end in ticks:
        reporter.step(phase, start, end)(fraction)

    assert all(0 <= fraction < 1 for fraction in listener.fractions)
    assert all(earlier <= later for earlier, later in pairwise(listener.fractions))


def test_a_job_of_three_frames_reports_as_often_as_the_next_test_believes(
    job: dict[str, Any],
) -> None:
    listener = Listener()

    handle(job, fake_runtime(engine=FakeEngine(frames=3)), listener)

    assert len(listener.heard) == TICKS + 1


@pytest.mark.parametrize("tick", range(TICKS))
def test_a_job_taken_back_at_any_report_is_cancelled_and_leaves_nothing(
    job: dict[str, Any], tick: int
) -> None:
    workspace = FakeWorkspace()
    runtime = fake_runtime(engine=FakeEngine(frames=3), workspace=workspace)

    cancelled = handle(job, runtime, Listener(refuses_at=tick))
    after = handle(job, runtime)

    assert cancelled.error_type is ErrorType.CANCELLED
    assert cancelled.error_code == "cancelled"
    assert cancelled.http_status == 499
    assert cancelled.retryable is False
    assert "stack_trace" not in cancelled.to_json()
    assert not any(directory.exists() for directory in workspace.lent)
    assert after.status == "success"
    assert not after.replayed, "a job that was taken back is on record"


@pytest.mark.parametrize("tick", range(TICKS - 2))
def test_a_job_taken_back_before_its_upload_is_done_stores_nothing(
    job: dict[str, Any], tick: int
) -> None:
    runtime = fake_runtime(engine=FakeEngine(frames=3))

    handle(job, runtime, Listener(refuses_at=tick))

    assert runtime.store.videos == {}


def test_a_job_taken_back_hears_that_it_failed(job: dict[str, Any]) -> None:
    listener = Listener(refuses_at=5)

    handle(job, fake_runtime(), listener)

    assert listener.heard[-1].phase is Phase.FAILED


def test_a_finished_job_can_no_longer_be_taken_back(job: dict[str, Any]) -> None:
    runtime = fake_runtime(engine=FakeEngine(frames=3))

    result = handle(job, runtime, Listener(refuses_at=TICKS))

    assert result.status == "success"
    assert list(runtime.store.videos) == ["job-123"]


@pytest.mark.parametrize(("fetch", "status"), [(None, "success"), (FakeFetch({}), "failed")])
def test_a_listener_that_breaks_at_the_very_end_loses_no_result(
    job: dict[str, Any], fetch: FakeFetch | None, status: str
) -> None:
    runtime = fake_runtime(**({"fetch": fetch} if fetch else {}))

    def hang_up(progress: Progress) -> None:
        if progress.phase in {Phase.COMPLETED, Phase.FAILED}:
            raise ConnectionError("Nobody listens any more.")

    result = handle(job, runtime, hang_up)

    assert result.status == status


def test_a_job_past_its_deadline_fails_and_may_be_tried_again(job: dict[str, Any]) -> None:
    clock = FakeClock()
    engine = FakeEngine(clock=clock, seconds=1000)
    runtime = fake_runtime(clock=clock, engine=engine, job_timeout_seconds=1800)

    result = handle(job, runtime)

    assert result.error_code == "deadline_exceeded"
    assert result.error_type is ErrorType.PROCESSING
    assert result.retryable is True
    assert result.stage == "inference"
    assert result.details == {"deadline_seconds": 1800}
    assert runtime.store.videos == {}


def test_a_job_that_takes_exactly_its_deadline_is_done(job: dict[str, Any]) -> None:
    clock = FakeClock()
    engine = FakeEngine(clock=clock, seconds=900)
    runtime = fake_runtime(clock=clock, engine=engine, job_timeout_seconds=1800)

    result = handle(job, runtime)

    assert result.status == "success"


@pytest.mark.parametrize(
    ("deadline_seconds", "status"), [(1, "failed"), (19, "failed"), (21, "success")]
)
@pytest.mark.parametrize("workers_own", [5, 10_000])
def test_a_jobs_own_deadline_overrides_the_workers(
    job: dict[str, Any], deadline_seconds: int, status: str, workers_own: int
) -> None:
    clock = FakeClock()
    engine = FakeEngine(clock=clock, seconds=10)
    runtime = fake_runtime(clock=clock, engine=engine, job_timeout_seconds=workers_own)

    result = handle(job | {"deadline_seconds": deadline_seconds}, runtime)

    assert result.status == status


def test_the_deadline_counts_from_the_first_byte_of_the_download(job: dict[str, Any]) -> None:
    clock = FakeClock()
    download = FakeFetch(FAKE_FILES)

    def slow_fetch(*args: Any) -> Fetched:
        clock.advance(11)
        return download(*args)

    runtime = fake_runtime(clock=clock, fetch=slow_fetch, job_timeout_seconds=10)

    result = handle(job, runtime)

    assert result.error_code == "deadline_exceeded"
    assert result.stage == "download"
