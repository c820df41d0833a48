from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from adapters.transfer.guard import Policy
from handler.errors import FetchFailed, MediaTooLarge, SourceUnavailable, WorkerError
from tests.adapters.transfer.downloads import MB, SECRET, failure, fetcher, ignore
from tests.adapters.transfer.loopback import HOST, authority_for, body, endless, serving, status


def test_a_file_arrives_whole_and_hashed(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    fractions: list[float] = []
    with serving(body(content)) as site:
        fetched = fetcher()(f"{site.url}/v.mp4?{SECRET}", tmp_path / "v", fractions.append)

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
        error = failure(SourceUnavailable, f"{site.url}/video.mp4?{SECRET}", tmp_path)

    assert error.message == "Download failed: 404 Not Found"
    assert error.details == {"url": f"{site.url}/video.mp4", "status_code": 404}
    assert len(site.seen) == 1


@pytest.mark.parametrize("code", [204, 206, 304, 400, 401, 403, 410, 451, 501])
def test_an_answer_that_no_retry_would_change_is_final(code: int, tmp_path: Path) -> None:
    with serving(status(code)) as site:
        error = failure(SourceUnavailable, site.url, tmp_path)

    assert error.details["status_code"] == code
    assert len(site.seen) == 1


def test_redirects_are_followed(tmp_path: Path) -> None:
    hops = [status(301, Location="/b"), status(302, Location="c?x=1"), status(307, Location="/d")]
    with serving(*hops, body(b"video")) as site:
        fetched = fetcher()(f"{site.url}/a", tmp_path / "v", ignore)

    assert fetched.bytes == len(b"video")
    assert fetched.attempts == 1
    assert [request.target for request in site.seen] == ["/a", "/b", "/c?x=1", "/d"]


def test_a_url_longer_than_any_honest_one_is_refused(tmp_path: Path) -> None:
    with serving(body(b"video")) as site:
        longest = f"{site.url}/".ljust(2048, "v")
        fetched = fetcher()(longest, tmp_path / "v", ignore)
        error = failure(SourceUnavailable, longest + "v", tmp_path)

    assert fetched.bytes == len(b"video")
    assert error.details["reason"] == "the URL is longer than 2048 characters"
    assert len(site.seen) == 1


def test_redirects_that_lead_nowhere_are_not_followed_for_ever(tmp_path: Path) -> None:
    with serving(status(302, Location="/again")) as site:
        error = failure(SourceUnavailable, site.url, tmp_path)

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
        error = failure(SourceUnavailable, site.url, tmp_path)

    assert error.details == {"url": site.url, "reason": reason}


def test_a_redirect_to_another_private_server_sends_it_nothing(tmp_path: Path) -> None:
    with serving(body(b"secret"), host="127.0.0.2") as inner:
        with serving(status(302, Location=inner.url)) as site:
            failure(SourceUnavailable, site.url, tmp_path)

        assert inner.connections == 0


def test_a_file_that_says_it_is_too_large_is_not_read(tmp_path: Path) -> None:
    with serving(body(b"", Content_Length=str(10 * MB))) as site:
        error = failure(MediaTooLarge, site.url, tmp_path, max_bytes=2 * MB)

    assert error.message == "The file is larger than the 2 MB that this worker accepts."
    assert error.details == {"url": site.url, "limit_bytes": 2 * MB}
    assert (tmp_path / "v").stat().st_size == 0
    assert len(site.seen) == 1


def test_a_file_that_does_not_say_its_size_is_cut_off_at_the_cap(tmp_path: Path) -> None:
    with serving(endless) as site:
        failure(MediaTooLarge, site.url, tmp_path, max_bytes=MB)

    assert (tmp_path / "v").stat().st_size <= MB


def test_a_file_as_large_as_allowed_is_accepted(tmp_path: Path) -> None:
    with serving(body(b"x" * 1000)) as site:
        fetched = fetcher(max_bytes=1000)(site.url, tmp_path / "v", ignore)

    assert fetched.bytes == 1000


def test_compressed_bytes_are_refused_before_they_can_grow(tmp_path: Path) -> None:
    with serving(body(b"bomb", Content_Encoding="gzip")) as site:
        error = failure(SourceUnavailable, site.url, tmp_path)

    assert error.details["reason"] == "the server insists on 'gzip' encoding"
    assert len(site.seen) == 1


def test_bytes_that_are_said_to_be_plain_are_taken(tmp_path: Path) -> None:
    with serving(body(b"video", Content_Encoding="Identity")) as site:
        assert fetcher()(site.url, tmp_path / "v", ignore).bytes == len(b"video")


@pytest.mark.parametrize(
    ("policy", "url", "reason"),
    [
        (Policy(), "http://example.com/", "the scheme 'http' is not allowed, only https"),
        (Policy(), "ftp://example.com/v", "the scheme 'ftp' is not supported, only https"),
        (Policy(), "file:///etc/passwd", "the scheme 'file' is not supported, only https"),
        (Policy(), "gopher://example.com/v", "the scheme 'gopher' is not supported, only https"),
        (Policy(), "data:,v", "the scheme 'data' is not supported, only https"),
        (Policy(), "https://example.com:22/", "port 22 is not allowed"),
        (Policy(allow_http=True), f"http://{HOST}/", f"'{HOST}' is not a public host"),
        (Policy(), "https://localhost/", "'localhost' is not a public host"),
        (Policy(), "https://169.254.169.254/", "'169.254.169.254' is not a public host"),
        (Policy(), "https://[::1]/", "'::1' is not a public host"),
        (Policy(), "https://[::ffff:a9fe:a9fe]/", "'::ffff:a9fe:a9fe' is not a public host"),
        (Policy(), "https://[64:ff9b::a9fe:a9fe]/", "'64:ff9b::a9fe:a9fe' is not a public host"),
        (Policy(), "https://[2002:a9fe:a9fe::1]/", "'2002:a9fe:a9fe::1' is not a public host"),
        (Policy(), "https://0177.0.0.1/", "'0177.0.0.1' is not a public host"),
        (Policy(), "https://2130706433/", "'2130706433' is not a public host"),
    ],
)
def test_a_url_that_breaks_a_rule_is_the_callers_fault(
    policy: Policy, url: str, reason: str, tmp_path: Path
) -> None:
    error = failure(SourceUnavailable, url, tmp_path, policy=policy)

    assert error.message == f"Download failed: {reason}"
    assert error.details == {"url": url, "reason": reason}
    assert not error.retryable


def test_a_private_server_that_nobody_allowed_is_sent_nothing(tmp_path: Path) -> None:
    with serving(body(b"secret")) as site:
        failure(SourceUnavailable, site.url, tmp_path, policy=Policy(allow_http=True))

        assert site.connections == 0


def test_a_server_with_a_false_certificate_is_not_believed(tmp_path: Path) -> None:
    authority = authority_for(HOST, tmp_path)
    with serving(body(b"video"), tls=authority.server) as site:
        error = failure(SourceUnavailable, site.url, tmp_path)

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
        error = failure(WorkerError, f"{site.url}/v.mp4?{SECRET}", tmp_path, max_bytes=MB)

    assert "5ecre7" not in error.message + json.dumps(error.details)
    assert error.details["url"] == f"{site.url}/v.mp4"


def test_what_a_server_calls_a_file_is_no_evidence(tmp_path: Path) -> None:
    with serving(body(b"\0\0\0\x18ftypisom", Content_Type="text/html")) as site:
        fetched = fetcher()(f"{site.url}/index.html", tmp_path / "v", ignore)

    assert fetched.path.read_bytes() == b"\0\0\0\x18ftypisom"


def test_a_file_that_the_disk_has_no_room_for_is_not_begun(tmp_path: Path) -> None:
    with serving(body(b"x" * 1000, Content_Length=str(2**60))) as site:
        error = failure(FetchFailed, f"{site.url}/v?{SECRET}", tmp_path, max_bytes=2**61)

    assert error.retryable
    assert error.details == {"url": f"{site.url}/v", "reason": "the disk has no room for it"}
    assert (tmp_path / "v").stat().st_size == 0
    assert len(site.seen) == 1


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_not_the_callers_fault(tmp_path: Path) -> None:
    with serving(body(b"x" * MB)) as site:
        error = failure(FetchFailed, site.url, tmp_path)

    assert error.message == "The download could not be written: File too large"
    assert error.retryable
    assert len(site.seen) == 1
