from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from adapters.transfer.fetch import HttpFetch
from adapters.transfer.guard import Policy
from adapters.transfer.retry import Retry
from handler.errors import (
    Cancelled,
    DeadlineExceeded,
    FetchFailed,
    MediaTooLarge,
    SourceUnavailable,
    WorkerError,
)
from handler.progress import Tick
from tests.adapters.transfer.loopback import (
    HOST,
    Answer,
    Handler,
    authority_for,
    body,
    dripping_body,
    dripping_headers,
    endless,
    serving,
    silent,
    status,
)

POLICY = Policy(allow_http=True, private_hosts=frozenset({HOST}))
SECRET = "X-Amz-Signature=5ecre7"
MB = 1024**2


def test_a_file_arrives_whole_and_hashed(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    fractions: list[float] = []
    with serving(body(content)) as site:
        fetched = _fetch()(f"{site.url}/v.mp4?{SECRET}", tmp_path / "v", fractions.append)

    assert (tmp_path / "v").read_bytes() == content
    assert fetched.path == tmp_path / "v"
    assert fetched.bytes == len(content)
    assert fetched.sha256 == hashlib.sha256(content).hexdigest()
    assert fetched.attempts == 1
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert site.seen[0].target == f"/v.mp4?{SECRET}"
    assert site.seen[0].headers["accept-encoding"] == "identity"


def test_a_missing_file_fails_in_the_words_that_callers_know(tmp_path: Path) -> None:
    with serving(status(404)) as site:
        error = _failure(SourceUnavailable, f"{site.url}/video.mp4?{SECRET}", tmp_path)

    assert error.message == "Download failed: 404 Not Found"
    assert error.details == {"url": f"{site.url}/video.mp4", "status_code": 404}
    assert len(site.seen) == 1


@pytest.mark.parametrize("code", [204, 206, 304, 400, 401, 403, 410, 451, 501])
def test_an_answer_that_no_retry_would_change_is_final(code: int, tmp_path: Path) -> None:
    with serving(status(code)) as site:
        error = _failure(SourceUnavailable, site.url, tmp_path)

    assert error.details["status_code"] == code
    assert len(site.seen) == 1


def test_a_server_that_recovers_is_waited_for(tmp_path: Path) -> None:
    slept: list[float] = []
    with serving(status(503), status(503), body(b"video")) as site:
        fetched = _fetch(slept)(site.url, tmp_path / "v", _ignore)

    assert fetched.attempts == 3
    assert (tmp_path / "v").read_bytes() == b"video"
    assert sum(slept) == 1 + 2


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(tmp_path: Path) -> None:
    slept: list[float] = []
    with serving(status(429, Retry_After="9"), body(b"video")) as site:
        _fetch(slept)(site.url, tmp_path / "v", _ignore)

    assert sum(slept) == 9


def test_a_server_that_never_recovers_is_given_up(tmp_path: Path) -> None:
    with serving(status(503)) as site:
        error = _failure(FetchFailed, f"{site.url}/v?{SECRET}", tmp_path)

    assert error.retryable
    assert error.message == "Download failed after 4 tries: 503 Service Unavailable"
    assert error.details == {
        "url": f"{site.url}/v",
        "reason": "503 Service Unavailable",
        "status_code": 503,
    }
    assert len(site.seen) == 4


def test_a_server_that_is_down_is_given_up(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as unused:
        port = unused.getsockname()[1]

    error = _failure(FetchFailed, f"http://{HOST}:{port}/v", tmp_path)

    assert "refused" in error.details["reason"]
    assert "status_code" not in error.details


def test_a_body_that_breaks_off_is_fetched_again(tmp_path: Path) -> None:
    with serving(body(b"half", Content_Length="8"), body(b"complete")) as site:
        fetched = _fetch()(site.url, tmp_path / "v", _ignore)

    assert fetched.attempts == 2
    assert fetched.sha256 == hashlib.sha256(b"complete").hexdigest()
    assert (tmp_path / "v").read_bytes() == b"complete"


def test_a_body_that_always_breaks_off_is_given_up(tmp_path: Path) -> None:
    with serving(body(b"half", Content_Length="8")) as site:
        error = _failure(FetchFailed, site.url, tmp_path)

    assert "without sending complete message body" in error.details["reason"]


def test_redirects_are_followed(tmp_path: Path) -> None:
    hops = [status(301, Location="/b"), status(302, Location="c?x=1"), status(307, Location="/d")]
    with serving(*hops, body(b"video")) as site:
        fetched = _fetch()(f"{site.url}/a", tmp_path / "v", _ignore)

    assert fetched.bytes == len(b"video")
    assert fetched.attempts == 1
    assert [request.target for request in site.seen] == ["/a", "/b", "/c?x=1", "/d"]


def test_redirects_that_lead_nowhere_are_not_followed_for_ever(tmp_path: Path) -> None:
    with serving(status(302, Location="/again")) as site:
        error = _failure(SourceUnavailable, site.url, tmp_path)

    assert error.details["reason"] == "more than 3 redirects"
    assert len(site.seen) == 4


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://127.0.0.2/", "'127.0.0.2' is not a public host"),
        ("http://169.254.169.254/latest/", "'169.254.169.254' is not a public host"),
        ("http://[::ffff:169.254.169.254]/", "'::ffff:169.254.169.254' is not a public host"),
        ("file:///etc/passwd", "the scheme 'file' is not supported, only https"),
        ("http://[", "the redirect does not lead to a URL"),
        ("http://me:5ecre7@127.0.0.1/", "a URL must not hold a user name or password"),
    ],
)
def test_a_redirect_leads_only_where_a_url_may(location: str, reason: str, tmp_path: Path) -> None:
    with serving(status(302, Location=location)) as site:
        error = _failure(SourceUnavailable, site.url, tmp_path)

    assert error.details == {"url": site.url, "reason": reason}


def test_a_redirect_to_another_private_server_sends_it_nothing(tmp_path: Path) -> None:
    with serving(body(b"secret"), host="127.0.0.2") as inner:
        with serving(status(302, Location=inner.url)) as site:
            _failure(SourceUnavailable, site.url, tmp_path)

        assert inner.connections == 0


def test_a_file_that_says_it_is_too_large_is_not_read(tmp_path: Path) -> None:
    with serving(body(b"", Content_Length=str(10 * MB))) as site:
        error = _failure(MediaTooLarge, site.url, tmp_path, max_bytes=2 * MB)

    assert error.message == "The file is larger than the 2 MB that this worker accepts."
    assert error.details == {"url": site.url, "limit_bytes": 2 * MB}
    assert (tmp_path / "v").stat().st_size == 0
    assert len(site.seen) == 1


def test_a_file_that_does_not_say_its_size_is_cut_off_at_the_cap(tmp_path: Path) -> None:
    with serving(endless) as site:
        _failure(MediaTooLarge, site.url, tmp_path, max_bytes=MB)

    assert (tmp_path / "v").stat().st_size <= MB


def test_a_file_as_large_as_allowed_is_accepted(tmp_path: Path) -> None:
    with serving(body(b"x" * 1000)) as site:
        fetched = _fetch(max_bytes=1000)(site.url, tmp_path / "v", _ignore)

    assert fetched.bytes == 1000


def test_compressed_bytes_are_refused_before_they_can_grow(tmp_path: Path) -> None:
    with serving(body(b"bomb", Content_Encoding="gzip")) as site:
        error = _failure(SourceUnavailable, site.url, tmp_path)

    assert error.details["reason"] == "the server insists on 'gzip' encoding"
    assert len(site.seen) == 1


def test_bytes_that_are_said_to_be_plain_are_taken(tmp_path: Path) -> None:
    with serving(body(b"video", Content_Encoding="Identity")) as site:
        assert _fetch()(site.url, tmp_path / "v", _ignore).bytes == len(b"video")


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with serving(silent) as site:
        error = _failure(FetchFailed, site.url, tmp_path, stall_seconds=0.05)

    assert error.details["reason"] == "the server stood still for 0.05 s"
    assert len(site.seen) == 4


@pytest.mark.parametrize("drip", [dripping_body, dripping_headers])
def test_a_server_that_drips_cannot_outlast_the_deadline(drip: Answer, tmp_path: Path) -> None:
    with serving(drip) as site:
        with pytest.raises(DeadlineExceeded):
            _fetch()(site.url, tmp_path / "v", _raising_at(12, DeadlineExceeded("late")))

    assert len(site.seen) == 1


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
            _fetch(max_bytes=100 * MB)(site.url, tmp_path / "v", _raising_at(9, Cancelled("stop")))

    assert len(site.seen) == 1
    assert hung_up == [True]


def test_a_job_that_is_taken_back_does_not_wait_for_another_try(tmp_path: Path) -> None:
    slept: list[float] = []

    def tick(fraction: float) -> None:
        if slept:
            raise Cancelled("stop")

    with serving(status(503, Retry_After="30")) as site:
        with pytest.raises(Cancelled):
            _fetch(slept)(site.url, tmp_path / "v", tick)

    assert len(site.seen) == 1
    assert slept == [1.0]


@pytest.mark.parametrize(
    ("policy", "url", "reason"),
    [
        (Policy(), "http://example.com/", "the scheme 'http' is not allowed, only https"),
        (Policy(), "ftp://example.com/v", "the scheme 'ftp' is not supported, only https"),
        (Policy(), "file:///etc/passwd", "the scheme 'file' is not supported, only https"),
        (Policy(allow_http=True), f"http://{HOST}/", f"'{HOST}' is not a public host"),
        (Policy(), "https://localhost/", "'localhost' is not a public host"),
        (Policy(), "https://169.254.169.254/", "'169.254.169.254' is not a public host"),
    ],
)
def test_a_url_that_breaks_a_rule_is_the_callers_fault(
    policy: Policy, url: str, reason: str, tmp_path: Path
) -> None:
    error = _failure(SourceUnavailable, url, tmp_path, policy=policy)

    assert error.message == f"Download failed: {reason}"
    assert error.details == {"url": url, "reason": reason}
    assert not error.retryable


def test_a_private_server_that_nobody_allowed_is_sent_nothing(tmp_path: Path) -> None:
    with serving(body(b"secret")) as site:
        _failure(SourceUnavailable, site.url, tmp_path, policy=Policy(allow_http=True))

        assert site.connections == 0


def test_a_server_with_a_false_certificate_is_not_believed(tmp_path: Path) -> None:
    authority = authority_for(HOST, tmp_path)
    with serving(body(b"video"), tls=authority.server) as site:
        error = _failure(SourceUnavailable, site.url, tmp_path)

    assert error.details["reason"].startswith("the certificate is not valid")
    assert site.seen == []


@pytest.mark.parametrize(
    "answers",
    [
        [status(403)],
        [status(503)],
        [body(b"half", Content_Length="8")],
        [body(b"", Content_Length=str(100 * MB))],
        [body(b"", Content_Encoding="gzip")],
        [status(302, Location=f"http://127.0.0.2/?{SECRET}")],
        [lambda handler: handler.wfile.write(b"this is not HTTP\r\n\r\n")],
    ],
)
def test_the_query_of_a_url_is_never_repeated(answers: list[Any], tmp_path: Path) -> None:
    with serving(*answers) as site:
        error = _failure(WorkerError, f"{site.url}/v.mp4?{SECRET}", tmp_path, max_bytes=MB)

    assert "5ecre7" not in error.message + json.dumps(error.details)
    assert error.details["url"] == f"{site.url}/v.mp4"


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_not_the_callers_fault(tmp_path: Path) -> None:
    with serving(body(b"x" * MB)) as site:
        error = _failure(FetchFailed, site.url, tmp_path)

    assert error.message == "The download could not be written: File too large"
    assert error.retryable
    assert len(site.seen) == 1


def _fetch(
    slept: list[float] | None = None,
    *,
    policy: Policy = POLICY,
    max_bytes: int = 10 * MB,
    stall_seconds: float = 5.0,
) -> HttpFetch:
    sleep = (slept if slept is not None else []).append
    retry = Retry(sleep=sleep, chance=lambda: 1.0)
    return HttpFetch(policy, max_bytes=max_bytes, stall_seconds=stall_seconds, retry=retry)


def _failure(kind: type[WorkerError], url: str, folder: Path, **options: Any) -> WorkerError:
    with pytest.raises(kind) as failure:
        _fetch(**options)(url, folder / "v", _ignore)
    return failure.value


def _ignore(fraction: float) -> None:
    """Take no interest."""


def _raising_at(count: int, error: Exception) -> Tick:
    fractions: list[float] = []

    def tick(fraction: float) -> None:
        fractions.append(fraction)
        if len(fractions) == count:
            raise error

    return tick
