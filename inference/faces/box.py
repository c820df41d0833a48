"""From the landmarks of a face to the part of the picture that MuseTalk repaints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.frame import Box

#: Points of a face in the order of iBUG-68: [68, 2], across and down, in pixels of the frame.
Landmarks = NDArray[np.float64]

#: The point of the nose's bridge on which the box is centred, up and down.
NOSE_BRIDGE = 29
#: What is left of a face at the edge of the picture must be as large as this, to have a mouth.
LEAST_SIDE_PIXELS = 8


def face_box(landmarks: Landmarks, detected: Box | None, bbox_shift: int) -> Box | None:
    """Return the box around the landmarks, which may reach beyond the right and the bottom edge.

    The chin is its bottom and the bridge of the nose, moved down by ``bbox_shift`` pixels, its
    middle. Falls back to ``detected`` where that leaves nothing, or reaches beyond the left edge;
    None if nothing was detected (MuseTalk, preprocessing.py).
    """
    if detected is None:
        return None
    points = landmarks.astype(np.int32)
    # Before the chin is looked for: a bridge that was moved below it is the lowest point.
    points[NOSE_BRIDGE, 1] += bbox_shift
    left, right, chin = _extent(points)
    box = Box(left, max(0, 2 * int(points[NOSE_BRIDGE, 1]) - chin), right, chin)
    usable = box.left >= 0 and box.width > 0 and box.height > 0
    return box if usable else detected


def visible_box(
    landmarks: Landmarks, seen: NDArray[np.bool_], width: int, height: int
) -> Box | None:
    """Return the part of a face that is inside the picture, or None; ``seen`` [68] are its points.

    It stands in for the box of the reference's detector, S3FD: the rule above, but cut at the edge
    instead of given up; and where that leaves nothing, the extent of the landmarks.
    """
    points = landmarks.astype(np.int32)
    left, right, chin = _extent(points[seen])
    tops = [int(points[seen, 1].min())]
    if seen[NOSE_BRIDGE]:
        tops.insert(0, 2 * int(points[NOSE_BRIDGE, 1]) - chin)
    boxes = (_cut(Box(left, top, right, chin), width, height) for top in tops)
    return next((box for box in boxes if box.width > 0 and box.height > 0), None)


def crop_box(face: Box, margin: int, width: int, height: int) -> Box | None:
    """Return what is cut out of a picture for a face: ``margin`` pixels more below the chin.

    The reference cuts at the left, the top and the bottom only, and so distorts a face at the right
    edge (MuseTalk v1.5, inference.py). None if too little of it is inside the picture.
    """
    lengthened = Box(face.left, face.top, face.right, face.bottom + margin)
    crop = _cut(lengthened, width, height)
    return crop if min(crop.width, crop.height) >= LEAST_SIDE_PIXELS else None


def _extent(points: NDArray[np.int32]) -> tuple[int, int, int]:
    """Return the leftmost, the rightmost and the lowest pixel."""
    return int(points[:, 0].min()), int(points[:, 0].max()), int(points[:, 1].max())


def _cut(box: Box, width: int, height: int) -> Box:
    # Box.clipped rounds to whole chroma samples, which would move the face in its crop.
    return Box(max(0, box.left), max(0, box.top), min(width, box.right), min(height, box.bottom))
