"""What a worker and its engine's process say to each other.

Over the pipe: a :class:`Call` at a time, its :class:`Ticked` and its one answer; before the first,
:class:`Started` or :class:`Failed`. Over the leash, at any time: :class:`Stop`, :class:`Forget`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.supervision.fault import Fault
from adapters.supervision.loaded import EngineFacts
from handler.ports import Clip, Scene
from handler.result import CacheUse


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make a face ready, and keep it under the number of this call."""

    scene: Scene


@dataclass(frozen=True, slots=True)
class Animate:
    """Film with the face that another call made ready."""

    face: int
    scene: Scene
    target: Path


@dataclass(frozen=True, slots=True)
class Check:
    """Show that the engine still works."""


@dataclass(frozen=True, slots=True)
class Call:
    """Ask the engine for something."""

    number: int
    wanted: Prepare | Animate | Check


@dataclass(frozen=True, slots=True)
class Stop:
    """End a call at its next tick."""

    number: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Let go of the face that a call made ready."""

    number: int


@dataclass(frozen=True, slots=True)
class Started:
    """The engine is loaded."""

    facts: EngineFacts


@dataclass(frozen=True, slots=True)
class Ticked:
    """A call has come so far."""

    fraction: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """The face is ready, and stays where it is."""

    cache: CacheUse
    warnings: tuple[str, ...]
    engine_seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Filmed:
    """The clip is written."""

    clip: Clip


@dataclass(frozen=True, slots=True)
class Checked:
    """The engine works."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The call, or the start, came to nothing."""

    fault: Fault


Answer = Prepared | Filmed | Checked | Failed
Said = Started | Ticked | Answer
