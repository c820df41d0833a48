"""The weightless mouth: a warp that opens the lips as loud as the voice is.

It makes the whole path of a job usable without weights or a GPU. It is not lip-sync, and says so:
``"engine": "preview"`` stands in every result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.avatar import AvatarFrame
from inference.batching import Batch
from inference.faces.haar import HaarTracker
from inference.frame import Plane, Planes
from inference.media.sound import RATE_HZ
from inference.mouth import Shot
from inference.parts import Parts
from inference.preview_mask import MouthMask

#: Loudness is measured in steps of 10 ms.
STEP_SAMPLES = RATE_HZ // 100
#: RMS, full scale being 1, below which a recording is silent: -50 dB.
SILENCE_RMS = 0.003
#: Share of the loud parts' RMS below which the mouth stays closed.
GATE = 0.1
#: The loudest twentieth of a voice does not set the scale: it may be a click.
LOUD_PERCENTILE = 95
#: Neighbouring frames smooth a frame's opening: lips have inertia.
INERTIA = np.array([0.25, 0.5, 0.25])

#: Where the lips meet, as a share of a Haar face's width from its top (see ``MouthMask``).
LIP_LINE = 0.80
#: Half the width of a mouth, and its height when wide open, as shares of the face's width.
HALF_MOUTH = 0.14
WIDE_OPEN = 0.13
#: The upper lip's part of an opening; the jaw does the rest.
UPPER_LIP = 0.2
#: Width of the opening's soft rim, as a share of the face's width.
RIM = 0.02
#: The inside of a mouth, as Y, U, V: dark, a little red.
INSIDE = (30, 122, 142)


def preview_parts() -> Parts:
    """Put the preview engine together."""
    return Parts(
        name="preview",
        tracker=HaarTracker(),
        maker=MouthMask(),
        mouth=PreviewMouth(),
        options=frozenset({"bbox_shift", "extra_margin"}),
        tracker_device="cpu",
    )


class PreviewMouth:
    """Move lips by loudness alone."""

    def listen(
        self, sound: Iterable[NDArray[np.float32]], fps: Fraction, frames: int
    ) -> NDArray[np.float64]:
        """Return how far the mouth opens in each frame: [frames], 0 closed to 1 wide open."""
        loudness = _loudness(sound, float(fps), frames)
        heard = loudness[loudness > SILENCE_RMS]
        if not len(heard):
            return np.zeros(frames)
        loud = float(np.percentile(heard, LOUD_PERCENTILE))
        floor = max(SILENCE_RMS, GATE * loud)
        opening = np.clip((loudness - floor) / max(loud - floor, SILENCE_RMS), 0, 1)
        return np.convolve(np.pad(opening, 1, mode="edge"), INERTIA, "valid")

    def speak(self, shots: Iterable[Shot], batch: Batch) -> Iterator[tuple[Shot, Planes | None]]:
        """Yield each shot and its mouth opened by its cue; None leaves the frame as it is."""
        for shot in shots:
            if shot.place is None or not shot.cue:
                yield shot, None
            else:
                mouth = shot.frame.crop(shot.place.box)
                yield shot, open_mouth(mouth, shot.place, shot.cue)


def _loudness(sound: Iterable[NDArray[np.float32]], fps: float, frames: int) -> NDArray[np.float64]:
    """Return the RMS of the sound under each frame: [frames]."""
    energy = [np.zeros(1)]
    for chunk in sound:
        whole = np.pad(chunk, (0, -len(chunk) % STEP_SAMPLES)).reshape(-1, STEP_SAMPLES)
        energy.append(np.mean(np.square(whole, dtype=np.float64), axis=1))
    heard = np.cumsum(np.concatenate(energy))
    # The energy up to the edges of each frame, whatever fraction of a step they fall on.
    edges = np.arange(frames + 1) / fps * (RATE_HZ / STEP_SAMPLES)
    upto = np.interp(edges, np.arange(len(heard)), heard)
    return np.sqrt(np.maximum(0, np.diff(upto)) * fps * STEP_SAMPLES / RATE_HZ)


def open_mouth(mouth: Planes, place: AvatarFrame, opening: float) -> Planes:
    """Warp the mouth part of a face so that the lips part: 0 not at all, 1 wide."""
    height, width = mouth.y.shape
    rows, inside = _parting(place, opening)
    columns = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))
    half_rows, half_columns = (axis[::2, ::2] * np.float32(0.5) for axis in (rows, columns))
    return Planes(
        _warp(mouth.y, rows, columns, inside, INSIDE[0]),
        _warp(mouth.u, half_rows, half_columns, inside[::2, ::2], INSIDE[1]),
        _warp(mouth.v, half_rows, half_columns, inside[::2, ::2], INSIDE[2]),
    )


def _parting(place: AvatarFrame, opening: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the source row of each pixel, and how much of it is inside of the mouth, 0 to 1.

    Above the opening the picture is squeezed up, below it down; at the edges nothing moves.
    """
    box, face = place.box, place.face
    line = face.top + LIP_LINE * face.width - box.top
    middle = face.left + face.width / 2 - box.left
    across = (np.arange(box.width) + 0.5 - middle) / (HALF_MOUTH * face.width)
    gap = opening * WIDE_OPEN * face.width * np.maximum(0, 1 - across**2)
    # Where the picture ends at the lips there is no room to move them.
    upper = np.maximum(line - UPPER_LIP * gap, 1)
    lower = np.minimum(line + (1 - UPPER_LIP) * gap, box.height - 1)
    row = np.arange(box.height)[:, None]
    above = row * line / upper
    last = box.height - 1
    below = line + (row - lower) * (last - line) / np.maximum(last - lower, 1)
    rows = np.where(row < upper, above, np.where(row > lower, below, line))
    rim = RIM * face.width
    inside = np.clip((row - upper) / rim, 0, 1) * np.clip((lower - row) / rim, 0, 1)
    return rows.astype(np.float32), inside.astype(np.float32)


def _warp(
    plane: Plane,
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
    inside: NDArray[np.float32],
    color: int,
) -> Plane:
    moved = cv2.remap(
        plane, columns.copy(), rows.copy(), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.rint(moved + (color - moved.astype(np.float32)) * inside).astype(np.uint8)
