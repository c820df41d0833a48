"""The file that a face lives in: read where it is needed, so that memory does not grow with it.

First the blobs (masks and latents, in no order), then a row for each frame, then an ending, then
the SHA-256 of all before. Numbers are little-endian.
"""

from __future__ import annotations

import errno
import os
import struct
import weakref
from collections.abc import Iterator, Mapping
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Latents of a face whose lower half is hidden, then of the whole face: 4 channels each, and an
#: eighth of 256 pixels a side (MuseTalk, ``vae.py``).
LATENTS_SHAPE = (8, 32, 32)
#: Half and single precision, by the size of such latents.
PRECISIONS: Mapping[int, np.dtype[Any]] = {
    prod(LATENTS_SHAPE) * precision.itemsize: precision
    for precision in (np.dtype("<f2"), np.dtype("<f4"))
}

#: Where a blob begins, and how long it is.
BLOB = np.dtype([("at", "<i8"), ("bytes", "<i8")])
#: The beginning of a blob that is not there; a frame without a mask shows no face.
NOWHERE = -1
#: What is known of one frame.
ROW = np.dtype([("box", "<i4", 4), ("face", "<i4", 4), ("mask", BLOB), ("latents", BLOB)])
#: What this is, the number of frames, and whether they are the whole video.
ENDING = struct.Struct("<8sQ?")
#: Changes with the layout.
NAME = b"avatar 3"
CHECKSUM_BYTES = sha256().digest_size

#: What is read at once where all of it is read.
CHUNK_BYTES = 1 << 20


class AvatarFile:
    """A finished file for any number of threads; it closes once nobody refers to it."""

    def __init__(self, descriptor: int) -> None:
        """Take over an open descriptor."""
        # Unlike a file object, this closes without a warning: to forget it is the way to close it.
        weakref.finalize(self, os.close, descriptor)
        self._descriptor = descriptor
        self.size_bytes = os.fstat(descriptor).st_size

    def read(self, at: int, size: int) -> bytes:
        """Return a part; raise :class:`OSError` if it cannot be read, or not as a whole."""
        content = os.pread(self._descriptor, size, at)
        if len(content) != size:
            raise OSError(errno.EIO, "The avatar's file was cut off while in use")
        return content

    def blob(self, place: np.void) -> bytes | None:
        """Return what lies at a place of a row, or None if nothing does."""
        at, size = place.item()
        return None if at == NOWHERE else self.read(at, size)

    def chunks(self, end: int) -> Iterator[bytes]:
        """Yield all before ``end``, in pieces that fit into any memory."""
        for at in range(0, end, CHUNK_BYTES):
            yield self.read(at, min(CHUNK_BYTES, end - at))

    def verify(self) -> None:
        """Raise :class:`ValueError` unless every byte is as it was written."""
        end = max(0, self.size_bytes - CHECKSUM_BYTES)
        checksum = sha256()
        for chunk in self.chunks(end):
            checksum.update(chunk)
        if self.read(end, self.size_bytes - end) != checksum.digest():
            raise ValueError("the avatar's file is damaged")

    def index(self) -> tuple[NDArray[np.void], bool]:
        """Return the rows, and whether they are the whole video.

        Raises :class:`ValueError` if this is something else, or a row points out of the file.
        """
        end = self.size_bytes - CHECKSUM_BYTES - ENDING.size
        if end < 0:
            raise ValueError("this is too short for an avatar")
        name, frames, complete = ENDING.unpack(self.read(end, ENDING.size))
        blobs = end - frames * ROW.itemsize
        if name != NAME or blobs < 0:
            raise ValueError("this is no avatar")
        rows = np.frombuffer(self.read(blobs, end - blobs), ROW)
        _check(rows, blobs)
        return rows, complete


def _check(rows: NDArray[np.void], end: int) -> None:
    """Raise :class:`ValueError` unless each blob lies before ``end``, and latents are latents."""
    latents = rows["latents"]
    sound = (latents["at"] == NOWHERE) | np.isin(latents["bytes"], list(PRECISIONS))
    for blobs in (rows["mask"], latents):
        at, size = blobs["at"], blobs["bytes"]
        # A sum of the two could overflow; where this difference does, the size is negative.
        inside = (at >= 0) & (size >= 0) & (at <= end - size)
        sound &= inside | (at == NOWHERE)
    if not sound.all():
        raise ValueError("a row of the avatar points to what cannot be")
