"""Faces made ready, for tests that need no video."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any, BinaryIO

import numpy as np

from inference.avatar import Avatar, AvatarFrame, AvatarWriter
from inference.avatar_file import LATENTS_SHAPE
from inference.frame import Box


def some_frames(
    seed: int = 1, frames: int = 40, *, precision: type | None = None
) -> Iterator[AvatarFrame | None]:
    """Yield a face that moves, is gone now and then, has masks that repeat, and maybe latents."""
    chance = Random(seed)
    masks = [chance.randbytes(chance.randrange(1, 400)) for _ in range(5)]
    shades = np.random.default_rng(seed)
    for frame in range(frames):
        box, face = Box(2 * frame, 4, 2 * frame + 40, 50), Box(-3, 0, 60, frame)
        latents = None
        if precision is not None:
            latents = shades.standard_normal(LATENTS_SHAPE, np.float32).astype(precision)
        yield None if frame % 7 == 3 else AvatarFrame(box, masks[frame % 5], face, latents)


def written(frames: Iterable[AvatarFrame | None], *, complete: bool = True) -> Avatar:
    """Write frames into a file that has no name."""
    with tempfile.TemporaryFile() as file:
        return written_to(file, frames, complete=complete)


def written_to(
    file: BinaryIO, frames: Iterable[AvatarFrame | None], *, complete: bool = True
) -> Avatar:
    """Write frames into a file."""
    writer = AvatarWriter(file)
    for frame in frames:
        writer.add(frame)
    return writer.finish(complete=complete)


def read(avatar: Avatar) -> Iterator[AvatarFrame | None]:
    """Yield all frames of an avatar."""
    return (avatar.frame(index) for index in range(len(avatar)))


def told(frames: Iterable[AvatarFrame | None]) -> list[Any]:
    """Say all that frames hold, in words that can be compared."""
    return [frame and (frame.box, frame.mask_png, frame.face, _told(frame)) for frame in frames]


def _told(frame: AvatarFrame) -> Any:
    return None if frame.latents is None else (frame.latents.dtype.str, frame.latents.tolist())
