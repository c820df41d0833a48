"""Cases 1 to 6: where a worker does not go, whatever it is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from adapters.transfer.fetch import HttpFetch
from adapters.transfer.guard import Policy
from adapters.transfer.resolver import Resolver
from tests.adapters.transfer.downloads import MB
from tests.adapters.transfer.loopback import HOST, Authority, authority_for, body, serving, status
from tests.faults.aftermath import (
    QUERY,
    Watched,
    signed,
    verdict,
    watched_process,
    watched_runtime,
)

SENDERS_FAULT = ("media_error", False, "download")
#: Whose certificate has expired.
AGED = "localhost"
METADATA = "169.254.169.254"


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where certificates lie."""
    return tmp_path_factory.mktemp("certified")


@pytest.fixture(scope="module")
def authorities(certified: Path) -> Mapping[str, Authority]:
    """Return who vouches for servers: all of them are believed."""
    made = {}
    for name in (HOST, "other.test", AGED):
        (certified / name).mkdir()
        made[name] = authority_for(name, certified / name, expired=name == AGED)
    return made


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory,
    good: Mapping[str, str],
    certified: Path,
    authorities: Mapping[str, Authority],
) -> Iterator[Watched]:
    believed = certified / "authorities.pem"
    believed.write_bytes(b"".join(pem.read_bytes() for pem in certified.glob("*/server.pem")))
    place = tmp_path_factory.mktemp("addresses")
    with watched_process(
        place, good, SSL_CERT_FILE=f"{believed}", ALLOW_PRIVATE_HOSTS=f"{HOST},{AGED}"
    ) as worker:
        yield worker


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("file:///etc/passwd", id="01 file"),
        pytest.param("ftp://example.com/face.mp4", id="01 ftp"),
        pytest.param("gopher://example.com/face.mp4", id="01 gopher"),
        pytest.param("data://video/mp4;base64,AAAA", id="01 data"),
    ],
)
def test_no_scheme_but_the_webs_is_spoken(worker: Watched, url: str) -> None:
    failure = worker.fail(video_url=f"{url}?{QUERY}")

    assert verdict(failure) == SENDERS_FAULT
    assert "is not supported, only https" in failure.error_message


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("127.0.0.2", id="02 loopback"),
        pytest.param(METADATA, id="02 metadata"),
        pytest.param("[::1]", id="02 loopback of IPv6"),
        pytest.param(f"[::ffff:{METADATA}]", id="02 metadata by mapped IPv6"),
        pytest.param("[64:ff9b::a9fe:a9fe]", id="02 metadata by NAT64"),
        pytest.param("[2002:a9fe:a9fe::1]", id="02 metadata by 6to4"),
        pytest.param("0177.0.0.1", id="02 octal loopback"),
        pytest.param("2130706433", id="02 decimal loopback"),
    ],
)
def test_no_private_address_is_spoken_to_however_it_is_written(worker: Watched, host: str) -> None:
    failure = worker.fail(video_url=signed(f"http://{host}"))

    assert verdict(failure) == SENDERS_FAULT
    assert "is not a public host" in failure.error_message


# Names lead where their owners like: no DNS of our own can be given to a process from outside.


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param(("10.0.0.1", "127.0.0.1"), id="03 all private"),
        pytest.param(("93.184.216.34", "10.0.0.1"), id="03 some private"),
    ],
)
def test_a_public_name_of_a_private_address_is_refused(
    tmp_path: Path, film: Path, syllable: Path, addresses: Sequence[str]
) -> None:
    fetch = HttpFetch(
        Policy(allow_http=True), max_bytes=MB, resolver=Resolver(lambda *_: addresses)
    )
    files = {"video_url": film.as_uri(), "audio_url": syllable.as_uri()}

    worker = watched_runtime(tmp_path, files, fetch)

    failure = worker.fail(video_url=signed("http://media.test"))

    assert verdict(failure) == SENDERS_FAULT
    assert "'media.test' is not a public host" in failure.error_message
    assert "10.0.0.1" not in str(failure)
    worker.assert_unharmed()


def test_04_a_name_that_leads_elsewhere_at_the_second_look_is_looked_up_once(
    tmp_path: Path, film: Path, syllable: Path
) -> None:
    asked: list[str] = []

    def look_up(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return [HOST] if len(asked) == 1 else ["127.0.0.2"]

    policy = Policy(allow_http=True, private_hosts=frozenset({"media.test"}))
    fetch = HttpFetch(policy, max_bytes=MB, resolver=Resolver(look_up))
    files = {"video_url": film.as_uri(), "audio_url": syllable.as_uri()}
    worker = watched_runtime(tmp_path, files, fetch)

    with serving(body(film.read_bytes())) as site:
        worker.film(video_url=signed(f"http://media.test:{site.port}"))

    assert asked == ["media.test"]
    assert site.seen[0].headers["host"] == f"media.test:{site.port}"
    worker.assert_unharmed()


@pytest.mark.parametrize(
    ("hops", "reason"),
    [
        pytest.param([f"http://{METADATA}/"], "is not a public host", id="05 to metadata"),
        pytest.param(["file:///etc/passwd"], "is not supported", id="05 to a file"),
        pytest.param(["/again"], "more than 3 redirects", id="05 in a circle"),
        pytest.param(["/b", "/c", "/d", "/e"], "more than 3 redirects", id="05 too often"),
    ],
)
def test_a_redirect_leads_only_where_a_url_may(
    worker: Watched, hops: Sequence[str], reason: str
) -> None:
    with serving(*(status(302, Location=f"{hop}?{QUERY}") for hop in hops)) as site:
        failure = worker.fail(video_url=signed(site.url))

    assert verdict(failure) == SENDERS_FAULT
    assert reason in failure.error_message


@pytest.mark.parametrize(
    ("host", "proves", "reason"),
    [
        pytest.param(HOST, "other.test", "IP address mismatch", id="06 of another name"),
        pytest.param(AGED, AGED, "certificate has expired", id="06 expired"),
    ],
)
def test_a_certificate_that_proves_nothing_is_not_believed(
    worker: Watched,
    authorities: Mapping[str, Authority],
    film: Path,
    host: str,
    proves: str,
    reason: str,
) -> None:
    content = body(film.read_bytes())
    with (
        serving(content, tls=authorities[proves].server, host=host) as false,
        serving(content, tls=authorities[HOST].server) as true,
    ):
        failure = worker.fail(video_url=signed(false.url))
        worker.film(video_url=signed(true.url))

    assert verdict(failure) == SENDERS_FAULT
    assert reason in failure.error_message
    assert false.seen == []
