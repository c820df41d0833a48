"""Letters on disk: what must reach the orchestrator outlives the process that wrote it."""

from __future__ import annotations

import json
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.orchestrator import Message

#: Where letters lie that nobody will ever take, for somebody to read.
ASIDE = "refused"


@dataclass(frozen=True, slots=True, eq=False)
class Letter:
    """Hold a message, and where it lies; None if the disk did not take it."""

    message: Message
    path: Path | None = None


class Spool:
    """Keeps letters in a directory, oldest first, until they are taken or put aside."""

    def __init__(self, directory: Path) -> None:
        """Keep them in ``directory``; raise :class:`OSError` if nothing can be kept there."""
        self.directory = directory
        self._aside = directory / ASIDE
        for place in (*reversed(self._aside.parents), self._aside):
            # One by one: mkdir's own way to make parents leaves them open to everybody.
            place.mkdir(mode=0o700, exist_ok=True)
        for part in directory.glob("*.part"):
            part.unlink(missing_ok=True)
        _write(directory / f"{uuid.uuid4().hex}.trial", {}).unlink()

    def put(self, message: Message) -> Letter:
        """Write a message so that not even a power cut loses it; raise :class:`OSError` if full."""
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        whole = {"path": message.path, "body": message.body}
        return Letter(message, _write(self.directory / f"{name}.json", whole))

    def letters(self) -> list[Letter]:
        """Return what lies there, oldest first; what is no letter is put aside."""
        found = ((path, self._read(path)) for path in sorted(self.directory.glob("*.json")))
        return [Letter(message, path) for path, message in found if message is not None]

    def remove(self, letter: Letter) -> None:
        """Forget a letter that was taken."""
        if letter.path is not None:
            with suppress(OSError):
                letter.path.unlink(missing_ok=True)

    def put_aside(self, letter: Letter) -> None:
        """Keep a letter that nobody will take out of the way of the others."""
        if letter.path is not None:
            with suppress(OSError):
                letter.path.replace(self._aside / letter.path.name)

    def _read(self, path: Path) -> Message | None:
        # What cannot be read now may be read at the next start.
        with suppress(OSError):
            try:
                return _message(json.loads(path.read_text()))
            except (ValueError, KeyError, TypeError):
                path.replace(self._aside / path.name)
        return None


def _message(whole: Any) -> Message:
    if not isinstance(whole["path"], str) or not isinstance(whole["body"], dict):
        raise TypeError("this is no letter")
    return Message(whole["path"], whole["body"])


def _write(path: Path, content: dict[str, Any]) -> Path:
    """Write beside and rename, so that whoever looks sees all of it or nothing."""
    part = path.with_suffix(".part")
    try:
        with part.open("x") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync(path.parent)
    return path


def _sync(directory: Path) -> None:
    """Have the disk keep the names in a directory, too."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
