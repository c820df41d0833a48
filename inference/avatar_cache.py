"""Remember faces on disk, by content: no pickle, nothing half written or believed unchecked."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import zipfile
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from handler.result import CacheUse
from inference.avatar import Avatar, AvatarFrame
from inference.frame import Box

#: Changes when what is stored, or how it was found, changes.
FORMAT = 2
#: Nobody writes an entry for so long: whoever began it was killed.
ABANDONED_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class AvatarCache:
    """Keep avatars in a directory; the least recently used go when it outgrows its size."""

    directory: Path
    max_bytes: int

    def load(self, key: str) -> Avatar | None:
        """Return what is known under a key; an entry that cannot be read is removed."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        try:
            avatar = _unpack(content)
        except (ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile):
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        # On a volume that is only read, entries are used all the same.
        with suppress(OSError):
            os.utime(path)
        return replace(avatar, cache=CacheUse.HIT)

    def save(self, key: str, avatar: Avatar) -> None:
        """Write an avatar in one step, then make room."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.directory, suffix=".part", delete=False) as file:
            part = Path(file.name)
            try:
                file.write(_pack(avatar))
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


def _pack(avatar: Avatar) -> bytes:
    """Return a checksum, then arrays: each frame's box, face and number of its mask."""
    masks = list(dict.fromkeys(frame.mask_png for frame in avatar.frames if frame))
    number = {mask: index for index, mask in enumerate(masks)}
    rows = [
        (*astuple(frame.box), *astuple(frame.face), number[frame.mask_png])
        if frame
        else (0, 0, 0, 0, 0, 0, 0, 0, -1)
        for frame in avatar.frames
    ]
    buffer = BytesIO()
    np.savez(
        buffer,
        rows=np.array(rows, np.int32).reshape(-1, 9),
        sizes=np.array([len(mask) for mask in masks], np.int64),
        masks=np.frombuffer(b"".join(masks), np.uint8),
        complete=np.array(avatar.complete),
    )
    content = buffer.getvalue()
    return hashlib.sha256(content).digest() + content


def _unpack(content: bytes) -> Avatar:
    checksum, packed = content[:32], content[32:]
    if hashlib.sha256(packed).digest() != checksum:
        raise ValueError("the entry is damaged")
    with np.load(BytesIO(packed), allow_pickle=False) as stored:
        ends = np.cumsum(stored["sizes"])
        whole = stored["masks"].tobytes()
        masks = [whole[end - size : end] for end, size in zip(ends, stored["sizes"], strict=True)]
        frames = tuple(
            None if mask < 0 else AvatarFrame(Box(*sides[:4]), masks[mask], Box(*sides[4:]))
            for *sides, mask in stored["rows"].tolist()
        )
        return Avatar(frames, complete=bool(stored["complete"]))
