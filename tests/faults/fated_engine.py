"""The preview engine, until its job has a fate: ``{"metadata": {"fate": "segfault"}}``.

Its mouths are made as networks make them, in batches. A job's ``room`` is how many fit at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.bootstrap import load_engine
from adapters.config import Config
from adapters.supervision.loaded import CheckedEngine, EngineFacts
from handler.errors import MouthBlank
from handler.ports import Clip, Scene
from handler.progress import Tick
from inference.avatar import Avatar
from inference.batching import Batch, MemoryExhausted
from inference.frame import Planes
from inference.mouth import Shot
from inference.preview import PreviewMouth, preview_parts
from tests.doomed_engine import FATES

BATCH = 8
Spoken = tuple[Shot, Planes | None]


def start(config: Config) -> tuple[CheckedEngine[Any], EngineFacts]:
    """Load the engine."""
    mouth = CrampedMouth()
    plain = preview_parts()
    parts = replace(plain, mouth=mouth, batch_size=BATCH, options=plain.options | {"batch_size"})
    engine, facts = load_engine(config, lambda: parts)
    return FatedEngine(engine, mouth), facts


class CrampedMouth:
    """Speaks as the preview does, for as many frames at once as there is room for."""

    def __init__(self) -> None:
        self.room = BATCH
        self._mouth = PreviewMouth()

    def listen(
        self, sound: Iterable[NDArray[np.float32]], fps: Fraction, frames: int
    ) -> NDArray[np.float64]:
        """Hear what the preview hears."""
        return self._mouth.listen(sound, fps, frames)

    def speak(self, shots: Iterable[Shot], batch: Batch) -> Iterator[Spoken]:
        """Yield each shot and its mouth, one batch after the other."""
        for _, spoken in batch.run(self._paint, shots):
            yield from spoken

    def _paint(self, shots: Sequence[Shot]) -> list[Spoken]:
        if len(shots) > self.room:
            raise MemoryExhausted
        return list(self._mouth.speak(shots, Batch(1)))


class FatedEngine:
    """Films as another engine does, unless its job has a fate."""

    def __init__(self, engine: CheckedEngine[Any], mouth: CrampedMouth) -> None:
        self._engine = engine
        self._mouth = mouth

    def prepare(self, scene: Scene, tick: Tick) -> Avatar:
        """Make the face ready."""
        avatar: Avatar = self._engine.prepare(scene, tick)
        return avatar

    def animate(self, avatar: Avatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        """Meet the fate, or film."""
        told = scene.job.metadata
        self._mouth.room = int(str(told.get("room", BATCH)))
        _FATES[str(told.get("fate", "live"))](tick)
        return self._engine.animate(avatar, scene, target, tick)

    def check(self) -> None:
        """Find nothing wrong."""


def _blank(tick: Tick) -> None:
    raise MouthBlank("The networks' numbers ran out of bounds.")


_FATES: dict[str, Callable[[Tick], None]] = {**FATES, "blank": _blank}
