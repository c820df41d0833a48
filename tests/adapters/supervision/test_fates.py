"""Whatever befalls an engine in a process of its own costs one job, and the next is done."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

from handler import Progress, Success
from handler.errors import Cancelled
from handler.progress import Report, ignore
from tests.supervised_stage import HURRIED, PATIENT_SECONDS, Stage, wait_until_dead


@pytest.mark.parametrize(
    ("fate", "details"),
    [
        ("segfault", {"signal": "SIGSEGV"}),
        ("killed", {"signal": "SIGKILL"}),
        ("exit", {"exit_code": 3}),
        ("exit at once", {"exit_code": 4}),
    ],
)
def test_an_engine_that_dies_costs_one_job_and_says_how_it_died(
    stage: Stage, fate: str, details: dict[str, Any]
) -> None:
    before = stage.engine.pid

    failure = stage.fail(fate=fate)

    assert (failure.error_type, failure.error_code) == ("processing_error", "engine_died")
    assert (failure.stage, failure.retryable) == ("inference", True)
    assert failure.details == details
    assert stage.does_a_good_job()
    assert stage.engine.pid != before


def test_an_engine_that_was_killed_hints_at_the_memory_of_the_machine(stage: Stage) -> None:
    assert "memory" in stage.fail(fate="killed").error_message


def test_an_engine_may_die_while_it_reads_a_face_too(stage: Stage) -> None:
    failure = stage.fail(in_prepare="segfault")

    assert (failure.error_code, failure.stage) == ("engine_died", "preprocessing")
    assert stage.does_a_good_job()


@pytest.mark.parametrize("fate", ["hang", "wedged"])
def test_an_engine_that_hangs_is_killed_and_replaced(stage: Stage, fate: str) -> None:
    before, began = stage.engine.pid, time.monotonic()

    failure = stage.fail(fate=fate)

    assert time.monotonic() - began < HURRIED.stall_seconds + 10
    assert (failure.error_type, failure.error_code) == ("processing_error", "engine_stalled")
    assert (failure.stage, failure.retryable) == ("inference", True)
    assert stage.does_a_good_job()
    assert stage.engine.pid != before
    assert not psutil.pid_exists(before)


def test_an_engine_whose_gpu_is_lost_is_replaced(stage: Stage) -> None:
    before = stage.engine.pid

    failure = stage.fail(fate="lost gpu")

    assert (failure.error_type, failure.error_code) == ("processing_error", "engine_broken")
    assert (failure.stage, failure.retryable) == ("inference", True)
    assert "device-side assert" in failure.error_message
    assert stage.does_a_good_job()
    assert stage.engine.pid != before


@pytest.mark.parametrize("fate", ["out of host memory", "out of gpu memory"])
def test_a_job_that_does_not_fit_leaves_the_engine_where_it_is(stage: Stage, fate: str) -> None:
    before = stage.engine.pid

    failure = stage.fail(fate=fate)

    assert (failure.error_type, failure.error_code) == ("processing_error", "out_of_memory")
    assert (failure.stage, failure.retryable) == ("inference", True)
    assert failure.details == {"is_oom": True}
    assert stage.does_a_good_job()
    assert stage.engine.pid == before


@pytest.mark.parametrize("in_check", ["lost gpu", "bug", "hang", "segfault"])
def test_an_engine_that_does_not_recover_from_an_error_is_replaced(
    stage: Stage, in_check: str
) -> None:
    before = stage.engine.pid

    failure = stage.fail(fate="bug", in_check=in_check)

    assert failure.error_type == "unknown_error"
    assert stage.does_a_good_job()
    assert stage.engine.pid != before


def test_media_at_fault_put_no_engine_to_the_test(stage: Stage) -> None:
    before = stage.engine.pid

    failure = stage.fail(fate="faceless", in_check="segfault")

    assert failure.error_type == "media_error"
    assert stage.does_a_good_job()
    assert stage.engine.pid == before


def test_an_engine_that_died_between_two_jobs_costs_none(stage: Stage) -> None:
    stage.run()
    os.kill(stage.engine.pid, signal.SIGKILL)
    wait_until_dead(stage.engine.pid)

    assert stage.does_a_good_job()


def test_an_error_comes_out_as_it_went_in(stage: Stage) -> None:
    faceless, final = stage.fail(fate="faceless"), stage.fail(fate="final")

    assert (faceless.error_code, faceless.error_message) == ("face_not_found", "No face anywhere.")
    assert (faceless.stage, faceless.details) == ("validation", {"frames": 7})
    assert (final.error_code, final.retryable) == ("store_failed", False)
    assert "object object" in str(final.details["strange"])


def test_a_bug_is_told_by_its_name_and_where_it_is(stage: Stage) -> None:
    failure = stage.fail(fate="bug")

    assert (failure.error_type, failure.retryable) == ("unknown_error", False)
    assert failure.error_message == "KeyError: 'mouth'"
    assert "in _bug" in str(failure.stack_trace)


def test_progress_rises_from_the_first_half_to_the_second(stage: Stage) -> None:
    told: list[Progress] = []

    stage.run(told.append)

    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert {progress.phase for progress in told} >= {"downloading", "inferring", "completed"}


def faceless(progress: Progress) -> None:
    """Take the job back when its face is ready."""
    if progress.fraction > 0.3:
        raise Cancelled("taken back")


@pytest.mark.parametrize("report", [ignore, faceless])
def test_a_face_is_let_go_with_its_job(stage: Stage, report: Report) -> None:
    def others() -> str:
        result = stage.run()
        assert isinstance(result, Success)
        return result.warnings[0]

    end = time.monotonic() + PATIENT_SECONDS
    stage.fail(report, fate="bug")
    while others() != "0 others":
        assert time.monotonic() < end
