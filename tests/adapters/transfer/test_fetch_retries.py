from __future__ import annotations

import datetime as dt
import hashlib
import socket
from email.utils import format_datetime
from pathlib import Path

import pytest

from handler.errors import FetchFailed
from tests.adapters.transfer.downloads import SECRET, failure, fetcher, ignore
from tests.adapters.transfer.loopback import HOST, body, serving, status


def test_a_server_that_recovers_is_waited_for(tmp_path: Path) -> None:
    slept: list[float] = []
    with serving(status(503), status(503), body(b"video")) as site:
        fetched = fetcher(slept)(site.url, tmp_path / "v", ignore)

    assert fetched.attempts == 3
    assert (tmp_path / "v").read_bytes() == b"video"
    assert sum(slept) == 1 + 2


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(tmp_path: Path) -> None:
    slept: list[float] = []
    with serving(status(429, Retry_After="9"), body(b"video")) as site:
        fetcher(slept)(site.url, tmp_path / "v", ignore)

    assert sum(slept) == 9


def test_a_busy_server_may_name_the_hour(tmp_path: Path) -> None:
    slept: list[float] = []
    # The server's own clock is what counts: this one is years ahead.
    now = dt.datetime(2055, 3, 1, 12, tzinfo=dt.UTC)
    later = now + dt.timedelta(seconds=9)
    hours = {"Date": _http_date(now), "Retry_After": _http_date(later)}
    with serving(status(503, **hours), body(b"video")) as site:
        fetcher(slept)(site.url, tmp_path / "v", ignore)

    assert sum(slept) == 9


def test_an_hour_without_the_servers_clock_is_read_by_ours(tmp_path: Path) -> None:
    slept: list[float] = []
    later = _http_date(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30))
    with serving(status(503, Date="", Retry_After=later), body(b"video")) as site:
        fetcher(slept)(site.url, tmp_path / "v", ignore)

    assert 20 < sum(slept) <= 30


def test_a_server_that_wants_to_be_left_alone_for_an_hour_is_given_up(tmp_path: Path) -> None:
    slept: list[float] = []
    with serving(status(429, Retry_After="3600")) as site:
        with pytest.raises(FetchFailed) as failure:
            fetcher(slept)(site.url, tmp_path / "v", ignore)

    assert failure.value.message == (
        "Download failed after 1 try: 429 Too Many Requests, to be asked again after 3600 s"
    )
    assert failure.value.retryable
    assert slept == []


def test_a_server_that_never_recovers_is_given_up(tmp_path: Path) -> None:
    with serving(status(503)) as site:
        error = failure(FetchFailed, f"{site.url}/v?{SECRET}", tmp_path)

    assert error.retryable
    assert error.message == "Download failed after 5 tries: 503 Service Unavailable"
    assert error.details == {
        "url": f"{site.url}/v",
        "reason": "503 Service Unavailable",
        "status_code": 503,
    }
    assert len(site.seen) == 5


def test_a_server_that_is_down_is_given_up(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as unused:
        port = unused.getsockname()[1]

    error = failure(FetchFailed, f"http://{HOST}:{port}/v", tmp_path)

    assert "refused" in error.details["reason"]
    assert "status_code" not in error.details


def test_a_body_that_breaks_off_is_fetched_again(tmp_path: Path) -> None:
    with serving(body(b"half", Content_Length="8"), body(b"complete")) as site:
        fetched = fetcher()(site.url, tmp_path / "v", ignore)

    assert fetched.attempts == 2
    assert fetched.sha256 == hashlib.sha256(b"complete").hexdigest()
    assert (tmp_path / "v").read_bytes() == b"complete"


def test_a_body_that_always_breaks_off_is_given_up(tmp_path: Path) -> None:
    with serving(body(b"half", Content_Length="8")) as site:
        error = failure(FetchFailed, site.url, tmp_path)

    assert "without sending complete message body" in error.details["reason"]


def _http_date(moment: dt.datetime) -> str:
    return format_datetime(moment, usegmt=True)
