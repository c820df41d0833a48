"""A picture as the decoder gives it and the encoder takes it: planar YUV 4:2:0, 8 bits.

Staying in the codec's own layout keeps every pixel that is not the face exactly as it was, halves
what goes through the pipes, and spares two colour conversions a frame (docs/adr/0002).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.matrix import Bgr, Matrix, bgr_of

Plane = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Box:
    """Bound a part of a picture, in pixels; right and bottom lie outside it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Pixels across."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels down."""
        return self.bottom - self.top

    def clipped(self, width: int, height: int) -> Box:
        """Cut off what lies outside a picture, and round outwards to whole chroma samples."""
        return Box(
            max(0, self.left // 2 * 2),
            max(0, self.top // 2 * 2),
            min(width, -(-self.right // 2) * 2),
            min(height, -(-self.bottom // 2) * 2),
        )


class Planes(NamedTuple):
    """Hold one picture's luma [h, w] and its two chroma planes [h/2, w/2]."""

    y: Plane
    u: Plane
    v: Plane


class Frame:
    """One picture in one buffer; width and height are even."""

    __slots__ = ("buffer", "height", "matrix", "width")

    def __init__(
        self, buffer: Plane, width: int, height: int, matrix: Matrix = Matrix.BT601
    ) -> None:
        """Wrap ``buffer``: [width * height * 3 / 2] bytes, luma first."""
        self.buffer = buffer
        self.width = width
        self.height = height
        self.matrix = matrix

    @staticmethod
    def size_bytes(width: int, height: int) -> int:
        """Return the length of the buffer of one picture."""
        return width * height * 3 // 2

    @property
    def planes(self) -> Planes:
        """View the three planes, without a copy."""
        luma, quarter = self.width * self.height, self.width * self.height // 4
        half = (self.height // 2, self.width // 2)
        return Planes(
            self.buffer[:luma].reshape(self.height, self.width),
            self.buffer[luma : luma + quarter].reshape(half),
            self.buffer[luma + quarter :].reshape(half),
        )

    def crop(self, box: Box) -> Planes:
        """View a part of the picture, without a copy; the box must be even and inside."""
        full = slice(box.top, box.bottom), slice(box.left, box.right)
        half = slice(box.top // 2, box.bottom // 2), slice(box.left // 2, box.right // 2)
        y, u, v = self.planes
        return Planes(y[full], u[half], v[half])

    def copy(self) -> Frame:
        """Return the same picture in a buffer of its own."""
        return Frame(self.buffer.copy(), self.width, self.height, self.matrix)

    def bgr(self, box: Box | None = None) -> Bgr:
        """Return the picture, or any part of it, as [h, w, 3]; what lies outside it is black."""
        box = box or Box(0, 0, self.width, self.height)
        inside = box.clipped(self.width, self.height)
        if inside.width <= 0 or inside.height <= 0:
            return np.zeros((box.height, box.width, 3), np.uint8)
        part = bgr_of(*self.crop(inside), self.matrix)
        # Rounding to whole chroma samples may have added a row or a column on each side.
        top, left = max(0, box.top) - inside.top, max(0, box.left) - inside.left
        bottom, right = min(self.height, box.bottom), min(self.width, box.right)
        part = part[top : bottom - inside.top, left : right - inside.left]
        border = (max(0, -box.top), box.bottom - bottom, max(0, -box.left), box.right - right)
        return np.asarray(cv2.copyMakeBorder(part, *border, cv2.BORDER_CONSTANT), np.uint8)
