"""A face in a file: it comes back as it went in, and memory does not grow with its length."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import cv2
import numpy as np
import psutil
import pytest

from handler.errors import ProcessingError
from handler.result import CacheUse
from inference.avatar import Avatar, AvatarFrame
from inference.avatar_file import CHECKSUM_BYTES, ENDING, NAME, ROW, AvatarFile
from inference.frame import Box
from tests.avatars import read, some_frames, told, written, written_to

BOX = Box(0, 0, 8, 8)


# -- writing and reading ---------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [np.float16, np.float32, None])
def test_frames_come_back_as_they_went_in(precision: type | None) -> None:
    avatar = written(some_frames(precision=precision))

    assert told(read(avatar)) == told(some_frames(precision=precision))


def test_a_mask_can_be_seen_again() -> None:
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8)
    packed = cv2.imencode(".png", mask)[1].tobytes()

    frame = written([AvatarFrame(BOX, packed, BOX)]).frame(0)

    assert frame is not None
    assert np.array_equal(frame.mask, mask)


def test_a_new_face_was_made_at_no_cost_yet_and_remembered_by_nobody() -> None:
    avatar = written([])

    assert (avatar.cache, avatar.warnings, avatar.engine_seconds) == (CacheUse.MISS, (), {})


@pytest.mark.parametrize("index", [40, 10**9])
def test_there_is_no_frame_behind_the_last(index: int) -> None:
    avatar = written(some_frames(frames=40))

    with pytest.raises(IndexError):
        avatar.frame(index)


def test_what_comes_again_is_written_once() -> None:
    (frame, *_) = some_frames(precision=np.float16)

    once, often = written([frame]), written([frame] * 500)

    assert often.file.size_bytes - once.file.size_bytes == 499 * ROW.itemsize


def test_masks_that_come_again_after_a_long_time_are_the_same() -> None:
    frames = [AvatarFrame(BOX, f"mask {frame % 1500}".encode(), BOX) for frame in range(4000)]

    avatar = written(frames)

    assert list(read(avatar)) == frames


@pytest.mark.parametrize(
    "latents",
    [
        np.zeros((4, 32, 32), np.float16),
        np.zeros((32, 32, 8), np.float16),
        np.zeros((8, 32, 32), np.float64),
        np.zeros((8, 32, 32), np.int16),
    ],
    ids=["half of them", "turned around", "too precise", "whole numbers"],
)
def test_latents_that_no_network_takes_are_refused(latents: np.ndarray) -> None:
    with pytest.raises(ValueError, match="latents"):
        written([AvatarFrame(BOX, b"mask", BOX, latents)])


def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w+b", buffering=0) as full:
        with pytest.raises(OSError, match="No space left"):
            written_to(full, some_frames())


# -- the part that is shown ------------------------------------------------------------------------


def test_the_first_frames_are_an_avatar_of_their_own() -> None:
    avatar = written(some_frames(frames=40))

    part = avatar.first(11)

    assert told(read(part)) == told(some_frames(frames=40))[:11]
    assert (len(avatar), avatar.missing) == (40, 6)
    assert (len(part), part.missing) == (11, 2)


@pytest.mark.parametrize("frames", [None, 40, 1000])
def test_more_frames_than_there_are_is_all_of_them(frames: int | None) -> None:
    assert len(written(some_frames(frames=40)).first(frames)) == 40


def test_a_part_is_enough_for_a_short_voice_and_the_whole_for_any() -> None:
    part = written(some_frames(frames=40), complete=False)
    whole = written(some_frames(frames=40))

    assert [part.covers(needed) for needed in (39, 40, 41, None)] == [True, True, False, False]
    assert [whole.covers(needed) for needed in (39, 40, 41, None)] == [True] * 4


# -- many readers, nothing left behind -------------------------------------------------------------


def test_threads_read_one_face_at_once() -> None:
    avatar = written(some_frames(frames=60, precision=np.float16))
    expected = told(some_frames(frames=60, precision=np.float16))
    asked = Random(1).choices(range(60), k=600)

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(avatar.frame, asked))

    assert told(got) == [expected[index] for index in asked]


def test_a_face_that_nobody_needs_any_more_is_closed() -> None:
    before = psutil.Process().num_fds()
    avatar = written(some_frames())
    part = avatar.first(3)
    opened = psutil.Process().num_fds()

    del avatar
    kept = told(read(part))
    del part

    assert opened == before + 1
    assert kept == told(some_frames())[:3]
    assert psutil.Process().num_fds() == before


def test_memory_does_not_grow_with_the_length_of_the_video() -> None:
    tracemalloc.start()
    try:
        avatar = written(some_frames(frames=3000, precision=np.float16))
        avatar.file.verify()
        faces = sum(frame is not None for frame in read(avatar))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert faces == 3000 - avatar.missing
    assert avatar.file.size_bytes > 40_000_000
    assert peak < 4_000_000


# -- what is no avatar -----------------------------------------------------------------------------


def opened(path: Path) -> AvatarFile:
    return AvatarFile(os.open(path, os.O_RDONLY))


#: The end of an avatar of three frames.
THREE = ENDING.pack(NAME, 3, 1)


def forged(place: Path, rows: np.ndarray, ending: bytes = THREE) -> AvatarFile:
    """Return a file with blobs of 100,000 bytes, made by somebody who knows how to seal it."""
    content = bytes(100_000) + rows.tobytes() + ending
    place.write_bytes(content + hashlib.sha256(content).digest())
    file = opened(place)
    file.verify()
    return file


#: Where none of those blobs can lie.
FAR_AWAY = [
    (99_999, 2),
    (0, 100_001),
    (100_001, 0),
    (-2, 4),
    (0, -1),
    (50, -50),
    (sys.maxsize, sys.maxsize),
    (sys.maxsize, -sys.maxsize),
    (-sys.maxsize - 1, 16_384),
    (16_384, -sys.maxsize - 1),
]


@pytest.mark.parametrize("blob", ["mask", "latents"])
@pytest.mark.parametrize("place", FAR_AWAY)
def test_a_row_that_points_out_of_the_file_is_refused(
    tmp_path: Path, blob: str, place: tuple[int, int]
) -> None:
    rows = np.zeros(3, ROW)
    rows["latents"] = (0, 16_384)
    sound = forged(tmp_path / "sound", rows)
    rows[blob][1] = place
    unsound = forged(tmp_path / "unsound", rows)

    assert Avatar.read(sound).missing == 0
    with pytest.raises(ValueError, match="row"):
        Avatar.read(unsound)


@pytest.mark.parametrize("size", [0, 1, 16_383, 65_536])
def test_latents_of_an_odd_size_are_refused(tmp_path: Path, size: int) -> None:
    rows = np.zeros(3, ROW)
    rows["latents"] = (0, size)
    file = forged(tmp_path / "odd", rows)

    with pytest.raises(ValueError, match="row"):
        Avatar.read(file)


@pytest.mark.parametrize(
    "ending",
    [
        ENDING.pack(NAME, 1600, 1),
        ENDING.pack(NAME, 2**64 - 1, 1),
        ENDING.pack(b"avatar 2", 3, 1),
        b"",
        b"short",
    ],
    ids=["too many rows", "far too many", "another version", "no ending", "half an ending"],
)
def test_an_ending_that_cannot_be_is_refused(tmp_path: Path, ending: bytes) -> None:
    file = forged(tmp_path / "forged", np.zeros(3, ROW), ending)

    with pytest.raises(ValueError, match="this is no avatar"):
        Avatar.read(file)


@pytest.mark.parametrize("size", [0, 1, CHECKSUM_BYTES, CHECKSUM_BYTES + ENDING.size - 1])
def test_a_file_too_short_for_anything_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "short").write_bytes(bytes(size))

    with pytest.raises(ValueError, match="damaged"):
        opened(tmp_path / "short").verify()
    with pytest.raises(ValueError, match="short"):
        Avatar.read(opened(tmp_path / "short"))


def test_a_file_that_was_not_empty_makes_no_avatar() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(100_000))
        file.seek(0)

        with pytest.raises(ValueError, match="this is no avatar"):
            written_to(file, some_frames())


def test_a_file_that_is_cut_off_while_in_use_is_an_error_and_no_picture(tmp_path: Path) -> None:
    with (tmp_path / "face").open("w+b") as file:
        avatar = written_to(file, some_frames())

    os.truncate(tmp_path / "face", 1)

    with pytest.raises(ProcessingError, match="cut off"):
        avatar.frame(0)
