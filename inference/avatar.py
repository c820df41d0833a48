"""A face made ready: one record a source frame, never parallel lists, and never in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from hashlib import sha256
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from handler.errors import ProcessingError
from handler.result import CacheUse
from inference.avatar_file import ENDING, LATENTS_SHAPE, NAME, NOWHERE, PRECISIONS, ROW, AvatarFile
from inference.frame import Box, Plane

#: A face as MuseTalk's networks take it: [8, 32, 32], in their precision.
Latents = NDArray[np.float16] | NDArray[np.float32]

#: The row of a frame without a face.
NO_FACE = ((0, 0, 0, 0), (0, 0, 0, 0), (NOWHERE, 0), (NOWHERE, 0))
#: Blobs of which a writer knows where they lie, should one of them come again.
RECENT_BLOBS = 1024


@dataclass(frozen=True, slots=True)
class AvatarFrame:
    """Say where a generated face goes in one source frame, and how it is blended in."""

    #: Where the mask lies in the frame; its sides are even.
    box: Box
    #: PNG of [box height, box width], 0 to 255: a few kilobytes, where the plane takes a hundred.
    mask_png: bytes
    #: The whole face, as the tracker saw it: what lies where in the box follows from it.
    face: Box
    #: None for an engine without networks.
    latents: Latents | None = None

    @property
    def mask(self) -> Plane:
        """Unpack the mask."""
        packed = np.frombuffer(self.mask_png, np.uint8)
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Avatar:
    """Tell what is known of a face video; what is known of its frames stays in a file."""

    file: AvatarFile
    #: A row for each frame: a few bytes that say where in the file the rest is.
    rows: NDArray[np.void]
    #: The whole video is known, not just the part that a first voice needed.
    complete: bool
    cache: CacheUse = CacheUse.MISS
    warnings: tuple[str, ...] = ()
    #: Busy seconds of each step that made it.
    engine_seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, file: AvatarFile) -> Avatar:
        """Return the avatar in a file; raise :class:`ValueError` if there is none."""
        rows, complete = file.index()
        return cls(file, rows, complete=complete)

    def __len__(self) -> int:
        """Return the number of source frames."""
        return len(self.rows)

    @property
    def missing(self) -> int:
        """Count the frames without a face."""
        return int(np.count_nonzero(self.rows["mask"]["at"] == NOWHERE))

    def frame(self, index: int) -> AvatarFrame | None:
        """Read one frame, in any thread; None if it shows no face.

        Raises :class:`ProcessingError` if the file can no longer be read.
        """
        row = self.rows[index]
        try:
            mask_png, latents = (self.file.blob(row[name]) for name in ("mask", "latents"))
        except OSError as error:
            raise ProcessingError(f"The face can no longer be read: {error}.") from error
        if mask_png is None:
            return None
        box, face = (Box(*row[name].tolist()) for name in ("box", "face"))
        return AvatarFrame(box, mask_png, face, _unpacked(latents))

    def first(self, frames: int | None) -> Avatar:
        """Return this without what lies behind so many frames (None: with all of it)."""
        return replace(self, rows=self.rows[:frames])

    def covers(self, needed: int | None) -> bool:
        """Tell whether this is enough for so many frames (None: for the whole video)."""
        return self.complete or (needed is not None and len(self) >= needed)


class AvatarWriter:
    """Write an avatar frame by frame; masks and latents that come again are written once."""

    def __init__(self, file: BinaryIO) -> None:
        """Write to an empty file, which stays its owner's to close; it must be readable, too."""
        self._file = file
        self._checksum = sha256()
        self._size = 0
        self._rows = bytearray()
        self._recent: dict[bytes, int] = {}

    def add(self, frame: AvatarFrame | None) -> None:
        """Write the next frame; None if it shows no face.

        Raises :class:`OSError` if the disk takes no more, and :class:`ValueError` for latents of
        another shape or precision than the networks'.
        """
        row = NO_FACE if frame is None else self._row(frame)
        self._rows += np.array(row, ROW).tobytes()

    def finish(self, *, complete: bool) -> Avatar:
        """Return what was written, with a descriptor of its own; nothing more can be added.

        Raises :class:`OSError` if the disk takes no more.
        """
        frames = len(self._rows) // ROW.itemsize
        self._append(self._rows)
        self._append(ENDING.pack(NAME, frames, complete))
        self._append(self._checksum.digest())
        self._file.flush()
        return Avatar.read(AvatarFile(os.dup(self._file.fileno())))

    def _row(self, frame: AvatarFrame) -> tuple[tuple[int, ...], ...]:
        mask = self._blob(frame.mask_png)
        latents = (NOWHERE, 0) if frame.latents is None else self._blob(_packed(frame.latents))
        return astuple(frame.box), astuple(frame.face), mask, latents

    def _blob(self, content: bytes) -> tuple[int, int]:
        """Return where a blob lies and how long it is; write it if it is new."""
        digest = sha256(content).digest()
        if digest not in self._recent:
            if len(self._recent) == RECENT_BLOBS:
                del self._recent[next(iter(self._recent))]
            self._recent[digest] = self._append(content)
        return self._recent[digest], len(content)

    def _append(self, content: bytes | bytearray) -> int:
        """Write at the end; return where that was."""
        at = self._size
        self._file.write(content)
        self._checksum.update(content)
        self._size += len(content)
        return at


def _packed(latents: Latents) -> bytes:
    if latents.shape != LATENTS_SHAPE or latents.dtype not in PRECISIONS.values():
        raise ValueError(f"latents are {latents.dtype} {latents.shape}, not float {LATENTS_SHAPE}")
    return latents.tobytes()


def _unpacked(packed: bytes | None) -> Latents | None:
    if packed is None:
        return None
    return np.frombuffer(packed, PRECISIONS[len(packed)]).reshape(LATENTS_SHAPE)
