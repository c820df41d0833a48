from __future__ import annotations

from pathlib import Path

import pytest

from adapters.transfer.pace import Pace
from handler.errors import Cancelled, DeadlineExceeded, FetchFailed
from tests.adapters.transfer.downloads import (
    MB,
    Deadline,
    failure,
    fetcher,
    raising_at,
)
from tests.adapters.transfer.loopback import (
    HOST,
    Answer,
    Handler,
    dripping_body,
    dripping_headers,
    mute,
    serving,
    silent,
    status,
    unanswered,
)


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with serving(silent) as site:
        error = failure(FetchFailed, site.url, tmp_path, stall_seconds=0.05)

    assert error.details["reason"] == "the server stood still for 0.05 s"
    assert len(site.seen) == 5


@pytest.mark.parametrize("drip", [dripping_body, dripping_headers])
def test_a_server_that_drips_cannot_outlast_the_deadline(drip: Answer, tmp_path: Path) -> None:
    with serving(drip) as site:
        with pytest.raises(DeadlineExceeded):
            fetcher()(site.url, tmp_path / "v", raising_at(12, DeadlineExceeded("late")))

    assert len(site.seen) == 1


def test_a_silent_server_cannot_outlast_the_deadline(tmp_path: Path) -> None:
    deadline = Deadline(seconds=0.2)
    with serving(silent) as site:
        with pytest.raises(DeadlineExceeded):
            fetcher()(site.url, tmp_path / "v", deadline)

    assert deadline.seconds_over < 1


def test_a_server_that_never_begins_encryption_cannot_outlast_the_deadline(tmp_path: Path) -> None:
    deadline = Deadline(seconds=0.2)
    with mute() as port:
        with pytest.raises(DeadlineExceeded):
            fetcher()(f"https://{HOST}:{port}/v", tmp_path / "v", deadline)

    assert deadline.seconds_over < 1


def test_a_server_that_does_not_pick_up_cannot_outlast_the_deadline(tmp_path: Path) -> None:
    deadline = Deadline(seconds=0.2)
    with unanswered() as port:
        with pytest.raises(DeadlineExceeded):
            fetcher()(f"http://{HOST}:{port}/v", tmp_path / "v", deadline)

    assert deadline.seconds_over < 1


@pytest.mark.parametrize("drip", [dripping_body, dripping_headers])
def test_a_server_that_drips_is_given_up(drip: Answer, tmp_path: Path) -> None:
    hasty = Pace(window_seconds=0.1)
    with serving(drip) as site:
        error = failure(FetchFailed, site.url, tmp_path, pace=hasty, stall_seconds=0.1)

    assert error.retryable
    assert error.details["reason"] == "the server sent less than 16 KB/s for 0.1 s"
    assert len(site.seen) == 5


def test_a_job_that_is_taken_back_stops_its_download_and_hangs_up(tmp_path: Path) -> None:
    hung_up: list[bool] = []

    def answer(handler: Handler) -> None:
        handler.connection.settimeout(5)
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"\0" * 65536)
        except ConnectionError:
            hung_up.append(True)

    with serving(answer) as site:
        with pytest.raises(Cancelled):
            fetcher(max_bytes=100 * MB)(site.url, tmp_path / "v", raising_at(9, Cancelled("stop")))

    assert len(site.seen) == 1
    assert hung_up == [True]


def test_a_job_that_is_taken_back_does_not_wait_for_another_try(tmp_path: Path) -> None:
    slept: list[float] = []

    def tick(fraction: float) -> None:
        if slept:
            raise Cancelled("stop")

    with serving(status(503, Retry_After="30")) as site:
        with pytest.raises(Cancelled):
            fetcher(slept)(site.url, tmp_path / "v", tick)

    assert len(site.seen) == 1
    assert slept == [1.0]
