"""A face made ready: one record a source frame, never parallel lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from handler.result import CacheUse
from inference.frame import Box, Plane


@dataclass(frozen=True, slots=True)
class AvatarFrame:
    """Say where a generated face goes in one source frame, and how it is blended in."""

    box: Box
    #: PNG of [box height, box width], 0 to 255: a few kilobytes, where the plane takes a hundred.
    mask_png: bytes
    #: The whole face, as the tracker saw it: what lies where in the box follows from it.
    face: Box

    @property
    def mask(self) -> Plane:
        """Unpack the mask."""
        packed = np.frombuffer(self.mask_png, np.uint8)
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.uint8)


@dataclass(frozen=True, slots=True)
class Avatar:
    """Hold what is known of a face video; a frame without a face is None."""

    frames: tuple[AvatarFrame | None, ...]
    #: The whole video is known, not just the part that a first voice needed.
    complete: bool
    cache: CacheUse = CacheUse.MISS
    warnings: tuple[str, ...] = ()
    #: Busy seconds of each step that made it.
    engine_seconds: Mapping[str, float] = field(default_factory=dict)

    def covers(self, needed: int | None) -> bool:
        """Tell whether this is enough for so many frames (None: for the whole video)."""
        return self.complete or (needed is not None and len(self.frames) >= needed)
