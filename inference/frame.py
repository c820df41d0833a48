"""A picture as the decoder gives it and the encoder takes it: planar YUV 4:2:0, 8 bits.

Staying in the codec's own layout keeps every pixel that is not the face exactly as it was, halves
what goes through the pipes, and spares two colour conversions a frame (docs/adr/0002).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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

    __slots__ = ("buffer", "height", "width")

    def __init__(self, buffer: Plane, width: int, height: int) -> None:
        """Wrap ``buffer``: [width * height * 3 / 2] bytes, luma first."""
        self.buffer = buffer
        self.width = width
        self.height = height

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
        return Frame(self.buffer.copy(), self.width, self.height)
