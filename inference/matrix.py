"""Convert between a codec's luma and chroma, and the blue, green and red that networks see."""

from __future__ import annotations

from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

#: A picture of [h, w, 3]: blue, green, red, as OpenCV and MuseTalk order them.
Bgr = NDArray[np.uint8]

#: Limited range (ITU-R BT.601, 2.5.3): luma from 16 to 235, chroma from 16 to 240 around 128.
BLACK, LUMA_RANGE, GREY, CHROMA_RANGE = 16, 219, 128, 224


class Matrix(Enum):
    """Name a standard by its shares of red and blue in the luma."""

    BT601 = (0.299, 0.114)
    BT709 = (0.2126, 0.0722)
    FCC = (0.30, 0.11)
    SMPTE240M = (0.212, 0.087)
    BT2020 = (0.2627, 0.0593)

    @classmethod
    def of(cls, tag: str) -> Matrix:
        """Return the standard that an ffmpeg tag means."""
        return _TAGS[tag]

    @property
    def from_bgr(self) -> NDArray[np.float32]:
        """Rows for Y, U, V; columns for B, G, R and a constant (ITU-T H.273, section 8.3)."""
        red, blue = self.value
        luma = np.array([blue, 1 - red - blue, red])
        rows = [
            luma * LUMA_RANGE,
            (np.array([1, 0, 0]) - luma) / (2 * (1 - blue)) * CHROMA_RANGE,
            (np.array([0, 0, 1]) - luma) / (2 * (1 - red)) * CHROMA_RANGE,
        ]
        constants = [[BLACK], [GREY], [GREY]]
        return np.hstack([np.array(rows) / 255, constants]).astype(np.float32)

    @property
    def to_bgr(self) -> NDArray[np.float32]:
        """Rows for B, G, R; columns for Y, U, V and a constant: the inverse."""
        forth = self.from_bgr.astype(np.float64)
        back = np.linalg.inv(forth[:, :3])
        return np.hstack([back, -back @ forth[:, 3:]]).astype(np.float32)


_TAGS = {
    "smpte170m": Matrix.BT601,
    "bt470bg": Matrix.BT601,
    "bt709": Matrix.BT709,
    "fcc": Matrix.FCC,
    "smpte240m": Matrix.SMPTE240M,
    "bt2020nc": Matrix.BT2020,
    # Of constant luminance, which is no matrix; its neighbour comes closest.
    "bt2020c": Matrix.BT2020,
}


def bgr_of(y: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8], matrix: Matrix) -> Bgr:
    """Return luma [h, w] and chroma [h/2, w/2] as [h, w, 3]; each chroma sample stands for four."""
    size = y.shape[::-1]
    wide = (cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST) for plane in (u, v))
    return np.asarray(cv2.transform(cv2.merge([y, *wide]), matrix.to_bgr), np.uint8)


def planes_of(
    bgr: Bgr, matrix: Matrix
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return [h, w, 3], sides even, as luma [h, w] and chroma [h/2, w/2], the mean of each four."""
    rows = matrix.from_bgr
    height, width = bgr.shape[:2]
    coarse = cv2.resize(bgr, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    luma = np.asarray(cv2.transform(bgr, rows[:1]), np.uint8)
    chroma = np.asarray(cv2.transform(coarse, rows[1:]), np.uint8)
    return luma, np.ascontiguousarray(chroma[..., 0]), np.ascontiguousarray(chroma[..., 1])
