"""Follow a face with OpenCV's Haar cascade: no weights, one core, good enough for a preview."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from handler.job import Params
from inference.batching import Batch
from inference.faces.path import Face, distance, path_boxes
from inference.frame import Box, Frame, Plane

CASCADE = "haarcascade_frontalface_alt2.xml"
#: Heads do not move faster than interpolation between so many looks can follow.
LOOKS_PER_SECOND = 5
#: To what the short side of a picture is brought before searching, and the long one at most.
SEARCH_SIDE_PIXELS = 240
LONGEST_SIDE_PIXELS = 1280
#: Smallest face that is searched for, as a share of the short side.
SMALLEST_FACE = 0.12
SCALE_STEP = 1.1
NEIGHBOURS = 5
#: The last face, with this share of its size on each side, is searched before the whole picture.
VICINITY = 0.5


class HaarTracker:
    """Follow the largest face of the first frames for as long as it can be seen."""

    def track(
        self, frames: Iterable[Frame], fps: Fraction, params: Params, batch: Batch
    ) -> Sequence[Box | None]:
        """Return a box for each frame, smoothed over time, or None where it shows no face."""
        # A new one for each video: OpenCV's grows with every shape of picture it has seen.
        cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / CASCADE))
        stride = max(1, round(fps / LOOKS_PER_SECOND))
        faces: list[Face | None] = []
        total, last = 0, None
        for total, frame in enumerate(frames, 1):
            if (total - 1) % stride == 0:
                faces.append(_look(cascade, frame, last))
                last = faces[-1] if faces[-1] is not None else last
        return path_boxes(faces, stride, total, float(fps))


def _look(cascade: cv2.CascadeClassifier, frame: Frame, last: Face | None) -> Face | None:
    """Search around the last face, then everywhere."""
    places = [Box(0, 0, frame.width, frame.height)]
    if last is not None:
        places.insert(0, _vicinity(last, frame))
    for place in places:
        if found := _search(cascade, frame.planes.y, place):
            return max(found, key=lambda face: _likeness(face, last))
    return None


def _search(cascade: cv2.CascadeClassifier, luma: Plane, place: Box) -> list[Face]:
    short, long = sorted(luma.shape)
    scale = min(SEARCH_SIDE_PIXELS / short, LONGEST_SIDE_PIXELS / long)
    part = luma[place.top : place.bottom, place.left : place.right]
    small = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    side = int(SMALLEST_FACE * short * scale)
    hits = cascade.detectMultiScale(small, SCALE_STEP, NEIGHBOURS, minSize=(side, side))
    corner = np.array([place.left, place.top, 0.0])
    return [
        corner + np.array([x + width / 2, y + height / 2, width]) / scale
        for x, y, width, height in hits
    ]


def _vicinity(face: Face, frame: Frame) -> Box:
    reach = (0.5 + VICINITY) * face[2]
    left, top = (int(face[axis] - reach) for axis in (0, 1))
    right, bottom = (int(face[axis] + reach) for axis in (0, 1))
    return Box(left, top, right, bottom).clipped(frame.width, frame.height)


def _likeness(face: Face, last: Face | None) -> float:
    """Prefer the largest face at first, and the same one ever after."""
    return float(face[2] if last is None else -distance(face, last))
