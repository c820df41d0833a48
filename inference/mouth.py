"""What moves a mouth: the port that the preview and MuseTalk fill."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.avatar import AvatarFrame
from inference.batching import Batch
from inference.frame import Frame, Planes


@dataclass(frozen=True, slots=True)
class Shot:
    """Hold one frame to be shown: the picture, the face in it, and what the voice asks of it."""

    frame: Frame
    place: AvatarFrame | None
    cue: Any


class Mouth(Protocol):
    """Generates mouths that fit a voice."""

    def listen(
        self, sound: Iterable[NDArray[np.float32]], fps: Fraction, frames: int
    ) -> Iterable[Any]:
        """Yield a cue for each frame, from sound in chunks: [samples] at 16 kHz, mono, -1 to 1."""

    def speak(self, shots: Iterable[Shot], batch: Batch) -> Iterator[tuple[Shot, Planes | None]]:
        """Yield each shot and what to paste into its place; None leaves the frame as it is.

        A shot without a place, or whose cue is None, is left as it is.
        """
