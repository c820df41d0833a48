from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from handler.errors import FetchFailed, SourceUnavailable
from handler.ports import Fetched
from tests.adapters.transfer.downloads import failure, fetcher, ignore
from tests.adapters.transfer.loopback import Answer, Site, body, serving, status, versioned

FILE = random.Random(5).randbytes(300_000)
#: The same file after somebody has changed it.
NEWER = random.Random(6).randbytes(300_000)
SIZE = len(FILE)
BREAK = 90_000

broken = versioned(FILE, '"a"', breaks_at=BREAK)
whole = versioned(FILE, '"a"')


def test_a_download_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    broken_again = versioned(FILE, '"a"', breaks_at=180_000)
    with serving(broken, broken_again, whole) as site:
        fetched = _fetch(site, tmp_path)

    _assert_arrived(fetched, FILE)
    assert fetched.attempts == 3
    assert _ranges(site) == [None, "bytes=90000-", "bytes=180000-"]
    assert site.seen[1].headers["if-range"] == '"a"'


def test_a_busy_server_does_not_cost_what_has_come(tmp_path: Path) -> None:
    with serving(broken, status(503), whole) as site:
        fetched = _fetch(site, tmp_path)

    _assert_arrived(fetched, FILE)
    assert _ranges(site) == [None, "bytes=90000-", "bytes=90000-"]


def test_a_server_may_send_the_rest_in_parts(tmp_path: Path) -> None:
    part = _rest(FILE[BREAK:150_000], content_range=f"bytes {BREAK}-149999/{SIZE}")
    with serving(broken, part, whole) as site:
        fetched = _fetch(site, tmp_path)

    _assert_arrived(fetched, FILE)
    assert _ranges(site) == [None, "bytes=90000-", "bytes=150000-"]


def test_a_file_that_has_changed_is_fetched_from_its_beginning(tmp_path: Path) -> None:
    with serving(broken, versioned(NEWER[:-1], '"b"')) as site:
        fetched = _fetch(site, tmp_path)

    _assert_arrived(fetched, NEWER[:-1])
    assert fetched.attempts == 2


def test_a_changed_file_is_noticed_though_the_server_does_not_look_for_it(tmp_path: Path) -> None:
    rest_of_newer = _rest(NEWER[BREAK:], etag='"b"')
    with serving(broken, rest_of_newer, versioned(NEWER, '"b"')) as site:
        fetched = _fetch(site, tmp_path)

    _assert_arrived(fetched, NEWER)
    assert _ranges(site) == [None, "bytes=90000-", None]


@pytest.mark.parametrize("etag", ["", 'W/"a"', "a", '"a', '"a", "b"', '"\xff"'])
def test_without_a_sure_sign_of_sameness_all_is_fetched_again(etag: str, tmp_path: Path) -> None:
    unsure = versioned(FILE, etag, breaks_at=BREAK)
    with serving(unsure, versioned(NEWER, etag)) as site:
        fetched = _fetch(site, tmp_path)

    _assert_arrived(fetched, NEWER)
    assert _ranges(site) == [None, None]


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        "bytes",
        f"bytes 0-{SIZE - 1}/{SIZE}",
        f"bytes {BREAK - 1}-{SIZE - 1}/{SIZE}",
        f"bytes {BREAK + 1}-{SIZE - 1}/{SIZE}",
        f"bytes {BREAK}-{SIZE}/{SIZE + 1}",
        f"bytes {BREAK}-{SIZE - 1}/*",
        f"bytes */{SIZE}",
        f"lines {BREAK}-{SIZE - 1}/{SIZE}",
    ],
)
def test_a_rest_that_does_not_fit_is_not_taken(content_range: str, tmp_path: Path) -> None:
    with serving(broken, _rest(FILE[BREAK:], content_range=content_range), whole) as site:
        fetched = _fetch(site, tmp_path)

    _assert_arrived(fetched, FILE)
    assert _ranges(site) == [None, "bytes=90000-", None]


def test_a_rest_that_is_longer_than_the_file_is_not_believed(tmp_path: Path) -> None:
    with serving(broken, _rest(FILE[BREAK:] + b"and more"), whole) as site:
        fetched = _fetch(site, tmp_path)

    _assert_arrived(fetched, FILE)
    assert _ranges(site) == [None, "bytes=90000-", None]


def test_a_server_that_has_no_rest_is_asked_for_all(tmp_path: Path) -> None:
    gone = status(416, Content_Range="bytes */1000", Content_Encoding="gzip")
    with serving(broken, gone, versioned(NEWER[:1000], '"b"')) as site:
        fetched = _fetch(site, tmp_path)

    _assert_arrived(fetched, NEWER[:1000])
    assert _ranges(site) == [None, "bytes=90000-", None]


def test_a_compressed_rest_is_refused(tmp_path: Path) -> None:
    with serving(broken, _rest(b"bomb", Content_Encoding="gzip")) as site:
        error = failure(SourceUnavailable, site.url, tmp_path)

    assert error.details["reason"] == "the server insists on 'gzip' encoding"


def test_a_permission_that_ends_meanwhile_ends_the_download(tmp_path: Path) -> None:
    with serving(broken, status(403)) as site:
        error = failure(SourceUnavailable, site.url, tmp_path)

    assert error.details["status_code"] == 403


def test_a_download_that_gets_no_further_is_given_up(tmp_path: Path) -> None:
    with serving(broken) as site:
        error = failure(FetchFailed, site.url, tmp_path)

    assert error.retryable
    assert len(site.seen) == 5


def _fetch(site: Site, folder: Path) -> Fetched:
    return fetcher()(f"{site.url}/v", folder / "v", ignore)


def _rest(
    content: bytes,
    etag: str = '"a"',
    content_range: str = f"bytes {BREAK}-{SIZE - 1}/{SIZE}",
    **headers: str,
) -> Answer:
    return body(content, 206, ETag=etag, Content_Range=content_range, **headers)


def _ranges(site: Site) -> list[str | None]:
    return [request.headers.get("range") for request in site.seen]


def _assert_arrived(fetched: Fetched, content: bytes) -> None:
    assert fetched.path.read_bytes() == content
    assert fetched.bytes == len(content)
    assert fetched.sha256 == hashlib.sha256(content).hexdigest()
