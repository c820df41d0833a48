"""The file that a download goes to."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

from adapters.transfer.resume import Bookmark, strong_etag
from adapters.transfer.retry import Transient
from adapters.transfer.wire import Reply
from handler.errors import FetchFailed, MediaTooLarge

BYTES_IN_MB = 1024**2


class Sink:
    """Takes the bytes of one file in: hashed, counted, held to a cap, kept from try to try.

    They are not forced to the disk: no file of a workspace outlives the job that fetched it, and
    after a crash the job is done from its beginning.
    """

    def __init__(self, file: BinaryIO, max_bytes: int, place: str) -> None:
        """Write to an open file; ``place`` is what an error may tell of the URL."""
        self._file = file
        self._max_bytes = max_bytes
        self.place = place
        self._etag: str | None = None
        self._total_bytes: int | None = None
        self._hash = hashlib.sha256()
        self.received_bytes = 0

    @property
    def fraction(self) -> float:
        """Return how much has come, of what was declared or else of what is allowed."""
        expected = self._max_bytes if self._total_bytes is None else self._total_bytes
        return self.received_bytes / max(expected, 1)

    @property
    def sha256(self) -> str:
        """Return the hash of what has come."""
        return self._hash.hexdigest()

    @property
    def bookmark(self) -> Bookmark | None:
        """Return where to go on, if something has come and a change would be noticed."""
        if self._etag is None or self._total_bytes is None or self.received_bytes == 0:
            return None
        return Bookmark(self._etag, self.received_bytes, self._total_bytes)

    def empty(self) -> None:
        """Forget all that has come."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self._etag = self._total_bytes = None
        self.received_bytes = 0

    def begin(self, reply: Reply) -> None:
        """Make ready for a whole file.

        Raises :class:`MediaTooLarge` if it says that it is above the cap, :class:`FetchFailed` if
        it says that it does not fit on the disk.
        """
        self.empty()
        self._etag, self._total_bytes = strong_etag(reply), reply.size
        if reply.size is not None:
            self._check_cap(reply.size)
            self._check_disk(reply.size)

    def write(self, chunk: bytes) -> None:
        """Take bytes in; raise :class:`MediaTooLarge` instead of going above the cap."""
        self._check_cap(self.received_bytes + len(chunk))
        self._file.write(chunk)
        self._hash.update(chunk)
        self.received_bytes += len(chunk)

    def finish(self) -> None:
        """Raise :class:`Transient` unless exactly that has come that was declared."""
        received, total = self.received_bytes, self._total_bytes
        if total is None or received == total:
            return
        if received > total:
            self.empty()
        raise Transient(f"{received} bytes came of a file that has {total}")

    def _check_cap(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise MediaTooLarge(
                f"The file is larger than the {self._max_bytes / BYTES_IN_MB:g} MB"
                " that this worker accepts.",
                url=self.place,
                limit_bytes=self._max_bytes,
            )

    def _check_disk(self, size_bytes: int) -> None:
        disk = os.fstatvfs(self._file.fileno())
        free_bytes = disk.f_bavail * disk.f_frsize
        # Without any blocks a filesystem has no such limit, or does not tell (Linux's tmpfs).
        if disk.f_blocks and size_bytes > free_bytes:
            raise FetchFailed(
                f"The file has {size_bytes / BYTES_IN_MB:.0f} MB, and the worker's disk"
                f" {free_bytes / BYTES_IN_MB:.0f} MB free: give it more, or try another worker.",
                url=self.place,
                reason="the disk has no room for it",
            )
