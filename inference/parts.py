"""What makes one engine differ from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from inference.avatar_maker import AvatarMaker
from inference.faces import FaceTracker
from inference.mouth import Mouth

#: The options of a job that only an engine can heed.
FACE_OPTIONS = frozenset(
    {
        "bbox_shift",
        "extra_margin",
        "parsing_mode",
        "left_cheek_width",
        "right_cheek_width",
        "batch_size",
    }
)


class VideoMemory(Protocol):
    """Watches the memory of a GPU."""

    def reset_peak(self) -> None:
        """Begin to watch for the peak."""

    def peak_mib(self) -> float | None:
        """Return the peak since then in MiB; None if there is no such memory."""


def always_sound() -> None:
    """Find nothing wrong: where nothing is done on a device, none can be lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Hold what an engine is made of, and what results say of it."""

    name: str
    #: What tells these weights from others, and their numbers' precision; None without any.
    weights: str | None = None
    precision: str | None = None
    tracker: FaceTracker
    maker: AvatarMaker
    mouth: Mouth
    #: The job's options that it heeds; any other draws a warning.
    options: frozenset[str]
    #: How many frames its networks take at once, at most.
    batch_size: int = 1
    #: What the device calls itself.
    device: str = "cpu"
    #: Versions of PyTorch, and of the CUDA that it runs on; None without.
    torch: str | None = None
    cuda: str | None = None
    #: Where faces are tracked, ``cuda`` or ``cpu``: not always where the networks run.
    tracker_device: str | None = None
    memory: VideoMemory | None = None
    #: Does the least that the device must do; raises if it cannot.
    check: Callable[[], None] = always_sound
