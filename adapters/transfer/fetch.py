"""Bring in media from the URLs of strangers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin

from adapters.transfer.guard import Policy, Unreachable
from adapters.transfer.pace import Pace
from adapters.transfer.pulse import Pulse
from adapters.transfer.resolver import Resolver
from adapters.transfer.resume import Bookmark
from adapters.transfer.retry import Retry, Transient
from adapters.transfer.sink import Sink
from adapters.transfer.wire import REASON_CHARACTERS, Reply, Wire
from handler.errors import FetchFailed, SourceUnavailable
from handler.ports import Fetched
from handler.progress import Tick
from handler.redaction import redact

REDIRECTS_FOLLOWED = 3
#: Longer ones are nobody's, except where a caller has signed a PUT with a session's token.
MAX_URL_CHARACTERS = 2048
REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: What only a request for a part of a file may be answered with: a part, or that there is none.
ANSWERS_TO_A_RANGE = frozenset({206, 416})

#: Compressed bytes could grow beyond every cap once they are unpacked: ask for plain ones.
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "musetalk-worker"}

#: One try more than elsewhere: each may bring a part of the file.
STEADFAST = Retry(tries=5)


class HttpFetch:
    """Downloads a URL to a file: the port ``Fetch`` over the network.

    What a server says that it sends, its ``Content-Type``, is asked for nowhere: it is no evidence.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        max_bytes: int,
        stall_seconds: float = 15.0,
        pace: Pace | None = None,
        retry: Retry = STEADFAST,
        resolver: Resolver | None = None,
    ) -> None:
        """Accept at most ``max_bytes``; give a try up when nothing comes for ``stall_seconds``."""
        self._wire = Wire(policy, stall_seconds=stall_seconds, pace=pace, resolver=resolver)
        self._max_bytes = max_bytes
        self._retry = retry

    def __call__(self, url: str, path: Path, tick: Tick) -> Fetched:
        """Write the bytes of a URL to a path.

        ``tick`` may stop it at every step. Raises :class:`SourceUnavailable` if no try would
        help, :class:`MediaTooLarge` before more than the cap is written, :class:`FetchFailed`
        when all tries are used up or the disk is full.
        """
        place = redact(url)
        try:
            with path.open("wb") as file:
                return self._fetch(url, path, Sink(file, self._max_bytes, place), tick)
        except Unreachable as error:
            raise SourceUnavailable(
                f"Download failed: {error}", url=place, reason=str(error)
            ) from error
        except Transient as error:
            raise FetchFailed(
                f"Download failed after {error.effort}: {error}", url=place, **error.details
            ) from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise FetchFailed(
                f"The download could not be written: {reason}", url=place, reason=reason
            ) from error

    def _fetch(self, url: str, path: Path, sink: Sink, tick: Tick) -> Fetched:
        def attempt(number: int) -> Fetched:
            self._download(url, sink, lambda: tick(sink.fraction))
            tick(1.0)
            return Fetched(path, sink.received_bytes, sink.sha256, attempts=number)

        return self._retry.run(attempt, lambda: tick(0.0))

    def _download(self, url: str, sink: Sink, pulse: Pulse) -> None:
        bookmark = sink.bookmark
        headers = {**HEADERS, **(bookmark.headers if bookmark else {})}
        with self._open(url, headers, pulse) as reply:
            _receive(reply, sink, bookmark)

    @contextmanager
    def _open(self, url: str, headers: Mapping[str, str], pulse: Pulse) -> Iterator[Reply]:
        """Lend the answer at the end of the redirects; every hop passes all the checks."""
        for _ in range(REDIRECTS_FOLLOWED + 1):
            if len(url) > MAX_URL_CHARACTERS:
                raise Unreachable(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
            with self._wire.send("GET", url, headers, pulse=pulse) as reply:
                target = reply.headers.get("location") if reply.status in REDIRECTS else None
                if target is None:
                    yield reply
                    return
            url = _follow(url, target)
        raise Unreachable(f"more than {REDIRECTS_FOLLOWED} redirects")


def _follow(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise Unreachable("the redirect does not lead to a URL") from error


def _receive(reply: Reply, sink: Sink, bookmark: Bookmark | None) -> None:
    """Take a whole file in, or the rest of one; raise :class:`Transient` to be given another."""
    if bookmark and bookmark.continues(reply):
        _refuse_encoding(reply)
    elif bookmark and reply.status in ANSWERS_TO_A_RANGE:
        sink.empty()
        raise Transient("the server could not go on where the download broke off")
    elif reply.status == HTTPStatus.OK:
        _refuse_encoding(reply)
        sink.begin(reply)
    else:
        raise SourceUnavailable(
            f"Download failed: {reply}", url=sink.place, status_code=reply.status
        )
    for chunk in reply.body:
        sink.write(chunk)
    sink.finish()


def _refuse_encoding(reply: Reply) -> None:
    encoding = reply.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Unreachable(f"the server insists on {encoding[:REASON_CHARACTERS]!r} encoding")
