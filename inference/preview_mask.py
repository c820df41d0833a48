"""Where the preview's mouth goes, and how softly it is blended in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import cv2
import numpy as np

from handler.job import Params
from inference.avatar import AvatarFrame
from inference.batching import Batch
from inference.frame import Box, Frame

#: The part of a Haar face that moves in speech, as shares of its width from its top left corner.
#: Measured on portraits: the lips meet at 0.80, the chin ends at about 1.0.
MOUTH_LEFT, MOUTH_RIGHT = 0.18, 0.82
MOUTH_TOP, MOUTH_BOTTOM = 0.62, 1.04
#: Share of the sides over which the mask fades out.
FADE = 0.15
#: A mouth smaller than this cannot be seen to move.
SMALLEST_SIDE_PIXELS = 8


class MouthMask:
    """Fit a soft-edged rectangle around the mouth and chin of a Haar face."""

    def make(
        self,
        faces: Sequence[Box | None],
        frames: Iterable[Frame],
        size: tuple[int, int],
        params: Params,
        batch: Batch,
    ) -> Iterator[AvatarFrame | None]:
        """Yield the place of each face; the pictures are not looked at again."""
        for face in faces:
            yield None if face is None else self.fit(face, *size, params)

    def fit(self, face: Box, width: int, height: int, params: Params) -> AvatarFrame | None:
        """Return the place, moved by ``bbox_shift`` and ended ``extra_margin`` lower."""
        shift = params.bbox_shift
        face = Box(face.left, face.top + shift, face.right, face.bottom + shift)
        # The option's default of 10 px stands for the reference's chin; only what exceeds it adds.
        margin = params.extra_margin - Params().extra_margin
        box = Box(
            round(face.left + MOUTH_LEFT * face.width),
            round(face.top + MOUTH_TOP * face.width),
            round(face.left + MOUTH_RIGHT * face.width),
            round(face.top + MOUTH_BOTTOM * face.width) + margin,
        ).clipped(width, height)
        if min(box.width, box.height) < SMALLEST_SIDE_PIXELS:
            return None
        return AvatarFrame(box, _soft_rectangle(box.width, box.height), face)


@lru_cache(maxsize=256)
def _soft_rectangle(width: int, height: int) -> bytes:
    """Return a mask as PNG; faces of one size share it."""
    sides = [np.minimum(1, (np.arange(n) + 0.5) / (FADE * n)) for n in (height, width)]
    down, across = (np.minimum(side, side[::-1]) for side in sides)
    mask = np.rint(255 * np.outer(down, across)).astype(np.uint8)
    return cv2.imencode(".png", mask)[1].tobytes()
