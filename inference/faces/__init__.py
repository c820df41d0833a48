"""Finding faces: the port that every tracker fills."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Protocol

from handler.job import Params
from inference.batching import Batch
from inference.frame import Box, Frame


class FaceTracker(Protocol):
    """Follows one face through a video."""

    def track(
        self, frames: Iterable[Frame], fps: Fraction, params: Params, batch: Batch
    ) -> Sequence[Box | None]:
        """Return a box for each frame, or None where it shows no face."""
