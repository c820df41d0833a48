"""Cases 7 to 15: what strangers' servers do to a worker that downloads from them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.adapters.transfer.downloads import MB
from tests.adapters.transfer.loopback import (
    HOST,
    Answer,
    body,
    dripping_body,
    dripping_headers,
    endless,
    mute,
    serving,
    silent,
    status,
    versioned,
)
from tests.faults.aftermath import Watched, signed, verdict, watched_process

SENDERS_FAULT = ("media_error", False, "download")
NETWORKS_FAULT = ("processing_error", True, "download")

GROWTH_KIB = 50 * 1024


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, good: Mapping[str, str]) -> Iterator[Watched]:
    with watched_process(tmp_path_factory.mktemp("fetching"), good) as worker:
        yield worker


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(404, id="07 not found"),
        pytest.param(403, id="07 expired signature"),
        pytest.param(410, id="07 gone"),
    ],
)
def test_a_file_that_is_not_to_be_had_is_told_with_its_code_and_without_its_signature(
    worker: Watched, code: int
) -> None:
    with serving(status(code)) as site:
        failure = worker.fail(video_url=signed(site.url))

    assert verdict(failure) == SENDERS_FAULT
    assert failure.details == {"url": f"{site.url}/face.mp4", "status_code": code}


@pytest.mark.parametrize(
    ("before", "attempts"),
    [
        pytest.param([status(503), status(503)], 3, id="08 twice unavailable"),
        pytest.param([status(429, Retry_After="1")], 2, id="08 too many requests"),
    ],
)
def test_a_server_that_recovers_is_waited_for_and_the_tries_are_told(
    worker: Watched, film: Path, before: Sequence[Answer], attempts: int
) -> None:
    with serving(*before, body(film.read_bytes())) as site:
        success = worker.film(video_url=signed(site.url))

    assert success.metrics.attempts["video"] == attempts


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(status(503), id="09 unavailable for ever"),
        pytest.param(status(503, Retry_After="3600"), id="09 unavailable for an hour"),
        pytest.param(body(b"half", Content_Length="8"), id="15 always shorter than declared"),
    ],
)
def test_a_server_that_does_not_recover_is_the_networks_fault(
    worker: Watched, answer: Answer
) -> None:
    with serving(answer) as site:
        failure = worker.fail(video_url=signed(site.url), deadline_seconds=2)

    assert verdict(failure) == NETWORKS_FAULT
    assert len(site.seen) > 1 or failure.error_code == "fetch_failed"


def test_09_a_server_that_is_down_is_the_networks_fault(worker: Watched) -> None:
    with serving(status(200)) as site:
        closed = site.url

    failure = worker.fail(video_url=signed(closed), deadline_seconds=2)

    assert verdict(failure) == NETWORKS_FAULT


@pytest.mark.parametrize(
    "changes", [pytest.param(False, id="10 the same"), pytest.param(True, id="11 another by now")]
)
def test_a_download_that_breaks_off_goes_on_with_the_same_file_and_begins_with_another(
    worker: Watched, film: Path, *, changes: bool
) -> None:
    content, etag = film.read_bytes(), '"a"'
    breaks = [len(content) * 3 // 10, len(content) * 6 // 10]
    broken = [versioned(content, etag, breaks_at=at) for at in breaks]
    rest = versioned(content + bytes(8), '"b"') if changes else versioned(content, etag)
    with serving(*broken[: 1 if changes else 2], rest) as site:
        success = worker.film(video_url=signed(site.url))

    asked = [request.headers.get("range") for request in site.seen]
    assert asked == [None, *(f"bytes={at}-" for at in breaks)][: len(asked)]
    assert success.metrics.attempts["video"] == len(asked) == (2 if changes else 3)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(body(b"", Content_Length=str(3 * MB)), id="12 declared"),
        pytest.param(endless, id="12 endless"),
    ],
)
def test_a_file_larger_than_allowed_is_refused_as_soon_as_that_is_known(
    worker: Watched, answer: Answer
) -> None:
    with serving(answer) as site:
        failure = worker.fail(video_url=signed(site.url))

    assert verdict(failure) == SENDERS_FAULT
    assert failure.error_code == "media_too_large"
    assert failure.details["limit_bytes"] == 2 * MB


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(dripping_body, id="13 a drip of a body"),
        pytest.param(dripping_headers, id="13 a drip of headers"),
        pytest.param(silent, id="13 silence"),
    ],
)
def test_a_server_that_takes_its_time_cannot_outlast_the_job(
    worker: Watched, answer: Answer
) -> None:
    with serving(answer) as site:
        failure = worker.fail(video_url=signed(site.url), deadline_seconds=1)

    assert verdict(failure) == NETWORKS_FAULT
    assert failure.error_code == "deadline_exceeded"


def test_13_a_server_that_accepts_and_is_mute_cannot_outlast_the_job(worker: Watched) -> None:
    with mute() as port:
        failure = worker.fail(video_url=signed(f"http://{HOST}:{port}"), deadline_seconds=1)

    assert verdict(failure) == NETWORKS_FAULT


def test_14_a_bomb_of_compressed_bytes_is_not_unpacked(worker: Watched) -> None:
    bomb = gzip.compress(bytes(100 * MB))
    worker.film()
    before = peak_kib(worker.pid)

    with serving(body(bomb, Content_Encoding="gzip")) as site:
        failure = worker.fail(video_url=signed(site.url))

    assert verdict(failure) == SENDERS_FAULT
    assert peak_kib(worker.pid) - before < GROWTH_KIB


def peak_kib(pid: int) -> int:
    """Return the most memory that a process has ever held."""
    facts = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(facts["VmHWM"].split()[0])
