"""What a tracker that looks at every frame does about those in which it missed the face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from fractions import Fraction
from itertools import pairwise

import numpy as np

from inference.faces.path import BRIDGED_SECONDS, Face, distance
from inference.frame import Box


def bridge_gaps(boxes: Sequence[Box | None], fps: Fraction) -> list[Box | None]:
    """Return the boxes, and between two of the same face interpolated ones for a short gap.

    A longer gap, the ends, and the gap before a face elsewhere keep None. Boxes that were seen stay
    as they are: unlike :func:`path_boxes`, nothing is smoothed over time, because the reference
    does not, and a crop that lags behind the mouth moves it.
    """
    bridged = list(boxes)
    longest = max(1, round(BRIDGED_SECONDS * fps))
    seen = [(frame, box) for frame, box in enumerate(boxes) if box is not None]
    for (first, before), (last, after) in pairwise(seen):
        if last - first <= longest and _same(before, after):
            bridged[first + 1 : last] = _between(before, after, last - first)
    return bridged


def _same(box: Box, other: Box) -> bool:
    """Tell whether a face that was in one box may be the one in the other a moment later."""
    return distance(_face(box), _face(other)) <= box.width


def _face(box: Box) -> Face:
    return np.array([(box.left + box.right) / 2, (box.top + box.bottom) / 2, box.width])


def _between(before: Box, after: Box, steps: int) -> list[Box]:
    path = np.linspace(astuple(before), astuple(after), steps + 1)
    return [Box(*sides) for sides in path[1:-1].round().astype(int).tolist()]
