"""Remember faces on disk, by content: no pickle, nothing half written or believed unchecked."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handler.result import CacheUse
from inference.avatar import Avatar
from inference.avatar_file import AvatarFile

#: Changes when what is stored, or how it was found, changes.
FORMAT = 3
#: Nobody writes an entry for so long: whoever began it was killed.
ABANDONED_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class AvatarCache:
    """Keep avatars in a directory; the least recently used go when it outgrows its size."""

    directory: Path
    max_bytes: int

    def load(self, key: str) -> Avatar | None:
        """Return what is known under a key; an entry that is damaged or none is removed.

        The entry stays open: whoever makes room meanwhile does no harm.
        """
        path = self._path(key)
        try:
            file = AvatarFile(os.open(path, os.O_RDONLY))
            file.verify()
            avatar = Avatar.read(file)
        except OSError:
            return None
        except ValueError:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        # On a volume that is only read, entries are used all the same.
        with suppress(OSError):
            os.utime(path)
        return replace(avatar, cache=CacheUse.HIT)

    def save(self, key: str, avatar: Avatar) -> None:
        """Write an avatar in one step, then make room; one that has no room is left out.

        All that its file holds is written, whatever part of it the avatar shows.
        """
        if avatar.file.size_bytes > self.max_bytes:
            return
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.directory, suffix=".part", delete=False) as file:
            part = Path(file.name)
            try:
                for chunk in avatar.file.chunks(avatar.file.size_bytes):
                    file.write(chunk)
                file.flush()
                part.replace(self._path(key))
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        self._make_room()

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.avatar"

    def _make_room(self) -> None:
        entries = []
        for path in self.directory.glob("*.avatar"):
            # Another worker may be making room, too.
            with suppress(FileNotFoundError):
                entries.append((path, path.stat()))
        for part in self.directory.glob("*.part"):
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                    part.unlink()
        kept = 0
        for path, stat in sorted(entries, key=lambda entry: -entry[1].st_mtime):
            kept += stat.st_size
            if kept > self.max_bytes:
                path.unlink(missing_ok=True)


def cache_key(**facts: Any) -> str:
    """Return a key for everything on which an avatar depends; the facts must be JSON."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
