"""The path of a face between the looks at which a tracker saw it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.frame import Box

#: A face unseen for longer has gone; for less, it was only turned or blurred.
BRIDGED_SECONDS = 0.6
#: A face that was seen only once was none, if there were at least as many looks as this.
FEW_LOOKS = 3
#: Standard deviation of the smoothing over time.
SMOOTHING_SECONDS = 0.2

#: A face: [centre x, centre y, width], in pixels of the frame; or a path: [frames, 3].
Face = NDArray[np.float64]


def distance(face: Face, other: Face) -> float:
    """Return how far the centres of two faces lie apart."""
    return float(np.hypot(*(face[:2] - other[:2])))


def path_boxes(
    looks: Sequence[Face | None], stride: int, total: int, fps: float
) -> list[Box | None]:
    """Return a box for each of ``total`` frames, from one look every ``stride`` frames.

    Between looks the face is interpolated and smoothed; a frame half a stride or more from any
    look that saw it, or within a longer gap, has none.
    """
    boxes: list[Box | None] = [None] * total
    looks = _without_strays(looks)
    for run in _runs(looks, bridged=max(1, round(BRIDGED_SECONDS * fps / stride))):
        if len(run) == 1 and len(looks) >= FEW_LOOKS:
            continue
        first = max(0, run[0] * stride - stride // 2)
        last = min(total, run[-1] * stride + stride // 2 + 1)
        if run[-1] == len(looks) - 1:
            last = total
        seen = np.array([looks[look] for look in run])
        path = _interpolated(np.arange(first, last), np.array(run) * stride, seen)
        for frame, face in enumerate(_smoothed(path, SMOOTHING_SECONDS * fps), first):
            boxes[frame] = _box(face)
    return boxes


def _without_strays(looks: Sequence[Face | None]) -> list[Face | None]:
    """Drop what was taken for the face once, between two looks that saw the face itself."""
    kept = list(looks)
    for look in range(1, len(looks) - 1):
        before, face, after = looks[look - 1 : look + 2]
        if before is None or face is None or after is None:
            continue
        if _same(before, after) and not _same(before, face):
            kept[look] = None
    return kept


def _same(face: Face, other: Face) -> bool:
    return distance(face, other) <= float(face[2])


def _runs(looks: Sequence[Face | None], bridged: int) -> Iterator[list[int]]:
    """Yield the looks at which one face was seen, parted where it was gone or another one."""
    run: list[int] = []
    for look, face in enumerate(looks):
        if face is None:
            continue
        before = looks[run[-1]] if run else None
        if before is not None and (look - run[-1] > bridged or not _same(before, face)):
            yield run
            run = []
        run.append(look)
    if run:
        yield run


def _interpolated(frames: NDArray[np.int64], looks: NDArray[np.int64], seen: Face) -> Face:
    return np.stack([np.interp(frames, looks, column) for column in seen.T], axis=1)


def _smoothed(path: Face, deviation_frames: float) -> Face:
    reach = max(1, round(2 * deviation_frames))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation_frames) ** 2)
    padded = np.pad(path, ((reach, reach), (0, 0)), mode="edge")
    columns = [np.convolve(column, weights / weights.sum(), "valid") for column in padded.T]
    return np.stack(columns, axis=1)


def _box(face: Face) -> Box:
    x, y, half = face[0], face[1], face[2] / 2
    return Box(round(x - half), round(y - half), round(x + half), round(y + half))
