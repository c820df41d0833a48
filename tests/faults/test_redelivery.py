"""Cases 41 to 44: workers that are killed, jobs that come twice, workers that have the same job."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from handler import Success
from tests.adapters.transfer.loopback import Site, body, serving, silent
from tests.delivery.service import Door, Fault, Service, hang
from tests.faults.aftermath import QUERY, Dynasty, Watched, signed, verdict, wait_until
from tests.faults.bucket import delivering, is_true, objects
from tests.faults.tools import ENCODES, REVIEWS, Tools

PATIENCE_SECONDS = 20
CONFLICT = ("processing_error", False, "validation")

OpenWorker = Callable[..., Watched]


@pytest.fixture
def open_worker(tmp_path: Path, good: Mapping[str, Any], store: Service) -> Iterator[OpenWorker]:
    """Return what starts workers, each in a place of its own unless it is named."""
    with ExitStack() as opened:

        def start(place: str, **env: str) -> Watched:
            return opened.enter_context(delivering(tmp_path / place, good, store, **env))

        yield start


# -- 41: killed ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return Tools.install(tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="module")
def dynasty(
    tmp_path_factory: pytest.TempPathFactory,
    good: Mapping[str, Any],
    store: Service,
    tools: Tools,
) -> Iterator[Dynasty]:
    place = tmp_path_factory.mktemp("dynasty")
    dynasty = Dynasty(lambda: delivering(place, good, store, PATH=f"{tools.folder}"))
    yield dynasty
    dynasty.close()


Wait = Callable[[], None]


@contextmanager
def held_at(moment: str, tools: Tools, service: Service) -> Iterator[Wait]:
    """Hold a job at some moment of its way, and lend what waits for it to be there."""
    programs = {
        "validation": ("ffprobe", "*"),
        "inference": ("ffmpeg", ENCODES),
        "postprocessing": ("ffprobe", REVIEWS),
    }
    if moment in programs:
        with tools.held(*programs[moment]) as await_it:
            yield await_it
        return
    service.hanging.clear()
    service.faults = [Fault("PUT", {"upload": ".mp4", "record": ".json"}[moment], hang)]
    yield lambda: _await(service.hanging)
    service.faults.clear()


def _await(event: threading.Event) -> None:
    assert event.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("moment", "seen"),
    [
        pytest.param("validation", [], id="41 in its validation"),
        pytest.param("inference", [], id="41 in its inference"),
        pytest.param("postprocessing", [], id="41 in its postprocessing"),
        pytest.param("upload", [], id="41 in its upload"),
        pytest.param("record", [".mp4"], id="41 before its record"),
    ],
)
def test_a_job_whose_worker_is_killed_is_done_by_the_next_and_nothing_is_half(
    dynasty: Dynasty, tools: Tools, service: Service, name: str, moment: str, seen: list[str]
) -> None:
    killed = dynasty.worker
    with ThreadPoolExecutor(1) as caller, held_at(moment, tools, service) as await_it:
        asked = caller.submit(killed.do, musetalk_job_id=name)
        await_it()
        family = killed.family()
        killed.tell(signal.SIGKILL)

        assert isinstance(asked.exception(), requests.ConnectionError)
        assert objects(service, name) == seen

    heir = dynasty.succeed()
    success = heir.film(musetalk_job_id=name)

    assert is_true(service, success)
    assert service.unfinished() == []
    heir.assert_unharmed()
    assert psutil.wait_procs(family, PATIENCE_SECONDS)[1] == []


def test_41_a_job_whose_worker_is_killed_in_its_download_is_done_by_the_next(
    dynasty: Dynasty, service: Service, name: str, good: Mapping[str, Any], film: Path
) -> None:
    with serving(silent, body(film.read_bytes())) as site, ThreadPoolExecutor(1) as caller:
        job = {"musetalk_job_id": name, "video_url": signed(site.url)}
        asked = caller.submit(dynasty.worker.do, **job)
        wait_until(lambda: site.seen)
        dynasty.worker.tell(signal.SIGKILL)
        assert isinstance(asked.exception(), requests.ConnectionError)
        success = dynasty.succeed().film(**job)

    assert is_true(service, success)
    dynasty.worker.assert_unharmed()


# -- 42 to 44: more than once ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, good: Mapping[str, str], store: Service
) -> Iterator[Watched]:
    with delivering(tmp_path_factory.mktemp("redelivery"), good, store) as worker:
        yield worker


@pytest.fixture
def face(film: Path) -> Iterator[Site]:
    with serving(body(film.read_bytes())) as site:
        yield site


def test_42_a_job_that_comes_again_is_answered_without_its_media_and_without_the_engine(
    worker: Watched, service: Service, name: str, face: Site
) -> None:
    job = {"musetalk_job_id": name, "video_url": signed(face.url)}
    first = worker.film(**job)

    again = worker.film(**job)

    assert again == first.model_copy(update={"replayed": True})
    assert len(face.seen) == 1
    assert is_true(service, first)


@pytest.mark.parametrize(
    "compares", [pytest.param(True, id="43 where stores compare"), pytest.param(False, id="43 B2")]
)
def test_a_job_on_two_workers_at_once_has_two_true_answers_and_one_record(
    open_worker: OpenWorker, service: Service, name: str, *, compares: bool
) -> None:
    meeting = threading.Barrier(2)

    def meet(door: Door) -> bool:
        meeting.wait(PATIENCE_SECONDS)
        return False

    service.compares = compares
    service.faults = [Fault("PUT", ".mp4", meet, times=2)]
    workers = [open_worker(place) for place in ("first", "second")]

    with ThreadPoolExecutor(2) as callers:
        results = list(callers.map(lambda each: each.do(musetalk_job_id=name), workers))

    for result, each in zip(results, workers, strict=True):
        assert isinstance(result, Success), result
        assert is_true(service, result)
        assert result.output_url == service.record(name).success.output_url
        each.assert_unharmed()


def test_44_another_job_by_a_name_that_is_taken_is_refused(
    worker: Watched, service: Service, name: str, face: Site
) -> None:
    first = worker.film(musetalk_job_id=name)

    failure = worker.fail(musetalk_job_id=name, video_url=f"{face.url}/other.mp4?{QUERY}")

    assert verdict(failure) == CONFLICT
    assert failure.error_code == "idempotency_conflict"
    assert face.seen == []
    assert is_true(service, first)
