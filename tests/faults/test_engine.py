"""Cases 31 to 37: whatever befalls the engine costs its job, and not the worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.aftermath import Watched, verdict, watched_process

DOOMED_WORKER = (sys.executable, "-m", "tests.faults.doomed_worker")
ENGINES_FAULT = ("processing_error", True, "inference")
FINAL = ("processing_error", False, "inference")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, good: Mapping[str, str]) -> Iterator[Watched]:
    with watched_process(tmp_path_factory.mktemp("engine"), good, *DOOMED_WORKER) as worker:
        yield worker


def engine_of(worker: Watched) -> psutil.Process:
    """Return the process that the engine lives in now."""
    [engine] = worker.family()
    return engine


def test_31_a_batch_that_does_not_fit_is_halved_and_the_video_is_made(worker: Watched) -> None:
    success = worker.film(metadata={"room": 5})

    assert success.metrics.batch_size == 4


def test_32_a_job_that_fits_in_no_batch_may_be_tried_elsewhere_and_the_engine_stays(
    worker: Watched,
) -> None:
    before = engine_of(worker)

    failure = worker.fail(metadata={"room": 0})

    assert verdict(failure) == ENGINES_FAULT
    assert (failure.error_code, failure.details) == ("out_of_memory", {"is_oom": True})
    assert engine_of(worker) == before


@pytest.mark.parametrize(
    ("fate", "code"),
    [
        pytest.param("lost gpu", "engine_broken", id="33 an assert on the device"),
        pytest.param("hang", "engine_stalled", id="34 a hang"),
        pytest.param("wedged", "engine_stalled", id="34 a hang in the driver"),
        pytest.param("killed", "engine_died", id="35 a kill"),
        pytest.param("exit", "engine_died", id="35 an exit"),
        pytest.param("segfault", "engine_died", id="35 a segfault"),
    ],
)
def test_an_engine_that_is_lost_costs_one_job_and_is_replaced(
    worker: Watched, fate: str, code: str
) -> None:
    before = engine_of(worker)

    failure = worker.fail(metadata={"fate": fate})

    assert verdict(failure) == ENGINES_FAULT
    assert failure.error_code == code
    worker.film()
    assert engine_of(worker) != before
    assert not before.is_running()


def test_36_a_process_that_cannot_be_ended_costs_the_worker_once_its_job_is_answered(
    tmp_path: Path, good: Mapping[str, Any]
) -> None:
    # It ends, but not at once: there is much to tidy up.
    with watched_process(tmp_path, good, *DOOMED_WORKER, "stubborn") as worker:
        failure = worker.fail(metadata={"fate": "heavy hang"})
        refused = worker.fail()

        assert failure.error_type == "processing_error"
        assert (failure.stage, failure.retryable) == ("inference", True)
        assert (refused.error_code, refused.retryable) == ("worker_unavailable", True)
        worker.assert_tidy()


def test_37_a_mouth_that_is_no_picture_is_not_delivered(worker: Watched) -> None:
    before = engine_of(worker)

    failure = worker.fail(metadata={"fate": "blank"})

    assert verdict(failure) == FINAL
    assert failure.error_code == "mouth_blank"
    assert engine_of(worker) == before
