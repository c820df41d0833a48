"""What the start of an engine brings, in whichever process it takes place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from handler.ports import AvatarT, Engine


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Say what an engine is, in the words of results."""

    name: str
    #: What tells its weights from others; None without any.
    weights: str | None
    #: What the device calls itself.
    device: str
    #: Versions, told by whichever process has imported them; None where they are not used.
    torch: str | None = None
    cuda: str | None = None
    #: Where faces are found: ``cuda`` or ``cpu``.
    face_tracker: str | None = None


class CheckedEngine(Engine[AvatarT], Protocol):
    """An engine that can be asked whether it still works."""

    def check(self) -> None:
        """Do the least that shows it; raise whatever shows that it does not."""


#: Load an engine; what does so in another process is pickled on its way there.
Start = Callable[[], tuple[CheckedEngine[Any], EngineFacts]]
