"""What is learnt of a tracked face before it can speak: the port that the engines fill."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from handler.job import Params
from inference.avatar import AvatarFrame
from inference.batching import Batch
from inference.frame import Box, Frame


class AvatarMaker(Protocol):
    """Turns tracked faces into places, masks, and whatever its mouth will need of them."""

    def make(
        self,
        faces: Sequence[Box | None],
        frames: Iterable[Frame],
        size: tuple[int, int],
        params: Params,
        batch: Batch,
    ) -> Iterator[AvatarFrame | None]:
        """Yield a record for each face; None where there is none, or no room for it.

        ``frames`` are the pictures of these faces, (width, height) of ``size``. They are decoded as
        they are asked for: who does not need them does not look.
        """
