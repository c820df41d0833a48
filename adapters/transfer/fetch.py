"""Bring in media from the URLs of strangers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin

from adapters.transfer.guard import Policy, Pulse, Unreachable
from adapters.transfer.retry import PATIENT, Retry, Transient
from adapters.transfer.wire import REASON_CHARACTERS, Reply, Wire
from handler.errors import FetchFailed, MediaTooLarge, SourceUnavailable
from handler.ports import Fetched
from handler.progress import Tick
from handler.redaction import redact

REDIRECTS_FOLLOWED = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: Compressed bytes could grow beyond every cap once they are unpacked: ask for plain ones.
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "musetalk-worker"}

BYTES_IN_MB = 1024**2


class HttpFetch:
    """Downloads a URL to a file: the port ``Fetch`` over the network."""

    def __init__(
        self,
        policy: Policy,
        *,
        max_bytes: int,
        stall_seconds: float = 15.0,
        retry: Retry = PATIENT,
    ) -> None:
        """Accept at most ``max_bytes``; give a try up when nothing comes for ``stall_seconds``."""
        self._wire = Wire(policy, stall_seconds=stall_seconds)
        self._max_bytes = max_bytes
        self._retry = retry

    def __call__(self, url: str, path: Path, tick: Tick) -> Fetched:
        """Write the bytes of a URL to a path.

        ``tick`` may stop it at every step. Raises :class:`SourceUnavailable` if no try would
        help, :class:`MediaTooLarge` before more than the cap is written, :class:`FetchFailed`
        when all tries are used up or the disk is full.
        """
        place = redact(url)

        def attempt(number: int) -> Fetched:
            with path.open("wb") as file:
                sink = _Sink(file, self._max_bytes, place)
                self._download(url, sink, tick)
            return Fetched(path, sink.received, sink.sha256, attempts=number)

        try:
            return self._retry.run(attempt, lambda: tick(0.0))
        except Unreachable as error:
            raise SourceUnavailable(
                f"Download failed: {error}", url=place, reason=str(error)
            ) from error
        except Transient as error:
            raise FetchFailed(
                f"Download failed after {self._retry.tries} tries: {error}",
                url=place,
                **error.details,
            ) from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise FetchFailed(
                f"The download could not be written: {reason}", url=place, reason=reason
            ) from error

    def _download(self, url: str, sink: _Sink, tick: Tick) -> None:
        with self._open(url, lambda: tick(sink.fraction)) as reply:
            if reply.status != HTTPStatus.OK:
                raise SourceUnavailable(
                    f"Download failed: {reply}", url=sink.place, status_code=reply.status
                )
            _refuse_encoding(reply)
            sink.expect(reply.size)
            for chunk in reply.body:
                sink.write(chunk)
        tick(1.0)

    @contextmanager
    def _open(self, url: str, pulse: Pulse) -> Iterator[Reply]:
        """Lend the answer at the end of the redirects; every hop passes all the checks."""
        for _ in range(REDIRECTS_FOLLOWED + 1):
            with self._wire.send("GET", url, HEADERS, pulse=pulse) as reply:
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


def _refuse_encoding(reply: Reply) -> None:
    encoding = reply.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Unreachable(f"the server insists on {encoding[:REASON_CHARACTERS]!r} encoding")


class _Sink:
    """The file that a download goes to: hashed, counted and held to its cap."""

    def __init__(self, file: BinaryIO, max_bytes: int, place: str) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._expected_bytes = max_bytes
        self._hash = hashlib.sha256()
        self.place = place
        self.received = 0

    @property
    def fraction(self) -> float:
        """Return how much has come, of what was declared or else of what is allowed."""
        return self.received / max(self._expected_bytes, 1)

    @property
    def sha256(self) -> str:
        """Return the hash of what has come."""
        return self._hash.hexdigest()

    def expect(self, size: int | None) -> None:
        """Take note of a declared size; raise :class:`MediaTooLarge` if it is above the cap."""
        if size is not None:
            self._check(size)
            self._expected_bytes = size

    def write(self, chunk: bytes) -> None:
        """Take bytes in; raise :class:`MediaTooLarge` instead of going above the cap."""
        self.received += len(chunk)
        self._check(self.received)
        self._hash.update(chunk)
        self._file.write(chunk)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise MediaTooLarge(
                f"The file is larger than the {self._max_bytes / BYTES_IN_MB:g} MB"
                " that this worker accepts.",
                url=self.place,
                limit_bytes=self._max_bytes,
            )
