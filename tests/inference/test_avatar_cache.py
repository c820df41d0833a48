"""The memory for faces: what was saved comes back whole, or not at all."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import psutil
import pytest

from handler.result import CacheUse
from inference.avatar import Avatar, AvatarFrame
from inference.avatar_cache import AvatarCache, cache_key
from inference.avatar_file import ENDING, NAME, ROW
from inference.frame import Box
from tests.avatars import read, some_frames, told, written

ROOMY = 10**9


def some_avatar(seed: int = 1, *, complete: bool = True) -> Avatar:
    """Return a face that moves, is gone now and then, and has masks that repeat."""
    return written(some_frames(seed), complete=complete)


@pytest.fixture
def cache(tmp_path: Path) -> AvatarCache:
    """Return an empty cache with room enough."""
    return AvatarCache(tmp_path / "avatars", ROOMY)


# -- remembering -----------------------------------------------------------------------------------


FACES: dict[str, Callable[[], Avatar]] = {
    "a face": some_avatar,
    "a part of a face": lambda: some_avatar(complete=False),
    "a face with latents": lambda: written(some_frames(precision=np.float16)),
    "no frames": lambda: written([]),
    "no face": lambda: written([None, None]),
    "one frame": lambda: written([AvatarFrame(Box(0, 0, 3840, 2160), b"mask", Box(0, 0, 1, 1))]),
}


@pytest.mark.parametrize("kind", FACES)
def test_what_was_saved_comes_back(cache: AvatarCache, kind: str) -> None:
    avatar = FACES[kind]()
    cache.save("key", avatar)

    loaded = cache.load("key")

    assert loaded is not None
    assert (told(read(loaded)), loaded.complete) == (told(read(avatar)), avatar.complete)
    assert loaded.cache is CacheUse.HIT


def test_all_that_was_made_is_saved_whatever_part_of_it_is_shown(cache: AvatarCache) -> None:
    cache.save("key", some_avatar().first(3))

    loaded = cache.load("key")

    assert loaded is not None
    assert told(read(loaded)) == told(some_frames())


def test_what_was_never_saved_is_unknown(cache: AvatarCache) -> None:
    assert cache.load("key") is None


def test_saving_again_replaces(cache: AvatarCache) -> None:
    cache.save("key", some_avatar(1))

    cache.save("key", some_avatar(2))

    loaded = cache.load("key")
    assert loaded is not None
    assert told(read(loaded)) == told(some_frames(2))


def test_each_mask_is_stored_once(cache: AvatarCache) -> None:
    mask = Random(1).randbytes(10_000)
    boxes = (Box(0, 0, 2 * size, 2) for size in range(1, 200))
    avatar = written(AvatarFrame(box, mask, box) for box in boxes)

    cache.save("key", avatar)

    (entry,) = cache.directory.iterdir()
    assert entry.stat().st_size < 30_000


def test_nothing_but_entries_is_in_the_directory(cache: AvatarCache) -> None:
    for key in ("one", "two", "two"):
        cache.save(key, some_avatar())

    assert sorted(path.name for path in cache.directory.iterdir()) == ["one.avatar", "two.avatar"]


# -- keys ------------------------------------------------------------------------------------------


def test_the_order_of_facts_does_not_matter_and_each_of_them_does() -> None:
    key = cache_key(video="abc", fps="25", options={"bbox_shift": 0, "extra_margin": 10})

    assert key == cache_key(options={"extra_margin": 10, "bbox_shift": 0}, fps="25", video="abc")
    assert key != cache_key(video="abc", fps="25", options={"bbox_shift": 1, "extra_margin": 10})
    assert key != cache_key(video="abd", fps="25", options={"bbox_shift": 0, "extra_margin": 10})
    assert set(key) <= set("0123456789abcdef")


# -- damage ----------------------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "cut off at once": lambda content: content[:20],
    "cut off": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "one bit turned": lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
    "longer": lambda content: content + b"\x00",
    "something else": lambda content: b"PK\x03\x04" + Random(1).randbytes(500),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_entry_is_unknown_and_removed(cache: AvatarCache, kind: str) -> None:
    cache.save("key", some_avatar())
    (entry,) = cache.directory.iterdir()
    entry.write_bytes(DAMAGE[kind](entry.read_bytes()))

    loaded = cache.load("key")

    assert loaded is None
    assert not entry.exists()


def sealed(content: bytes) -> list[bytes]:
    """Return content with its checksum where this and where older versions look for it."""
    checksum = hashlib.sha256(content).digest()
    return [content + checksum, checksum + content]


def test_an_entry_that_holds_code_is_unknown_and_runs_nothing(cache: AvatarCache) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return os.mkdir, (f"{cache.directory}/exploded",)

    packed = BytesIO()
    np.savez(packed, rows=np.array([Bomb()], object))
    for content in (*sealed(packed.getvalue()), *sealed(pickle.dumps(Bomb()))):
        cache.directory.mkdir(exist_ok=True)
        (cache.directory / "key.avatar").write_bytes(content)

        loaded = cache.load("key")

        assert loaded is None
        assert not list(cache.directory.iterdir())


def test_an_entry_that_another_version_wrote_is_unknown_and_removed(cache: AvatarCache) -> None:
    packed = BytesIO()
    np.savez(
        packed,
        rows=np.zeros((3, 9), np.int32),
        sizes=np.array([4], np.int64),
        masks=np.frombuffer(b"mask", np.uint8),
        complete=np.array(1),
    )
    for content in sealed(packed.getvalue()):
        cache.directory.mkdir(exist_ok=True)
        (cache.directory / "key.avatar").write_bytes(content)

        loaded = cache.load("key")

        assert loaded is None
        assert not list(cache.directory.iterdir())


def test_an_entry_that_points_out_of_itself_is_unknown_and_removed(cache: AvatarCache) -> None:
    row = np.zeros(1, ROW)
    row["mask"] = (0, 10**15)
    content, _ = sealed(row.tobytes() + ENDING.pack(NAME, 1, 1))
    cache.directory.mkdir()
    (cache.directory / "key.avatar").write_bytes(content)

    loaded = cache.load("key")

    assert loaded is None
    assert not list(cache.directory.iterdir())


# -- room ------------------------------------------------------------------------------------------


def aged(cache: AvatarCache, key: str, seconds: int) -> None:
    """Let an entry have been used so long ago."""
    path = cache.directory / f"{key}.avatar"
    used = path.stat().st_mtime - seconds
    os.utime(path, (used, used))


def test_the_least_recently_used_go_when_there_is_no_more_room(tmp_path: Path) -> None:
    cache = AvatarCache(tmp_path, ROOMY)
    for age, key in enumerate(["newest", "middle", "oldest"], 1):
        cache.save(key, some_avatar())
        aged(cache, key, 100 * age)
    entry = (tmp_path / "newest.avatar").stat().st_size

    AvatarCache(tmp_path, 3 * entry).save("new", some_avatar())

    assert {path.stem for path in tmp_path.iterdir()} == {"new", "newest", "middle"}


def test_an_entry_that_was_used_stays_longer(tmp_path: Path) -> None:
    cache = AvatarCache(tmp_path, ROOMY)
    for age, key in enumerate(["newest", "middle", "oldest"], 1):
        cache.save(key, some_avatar())
        aged(cache, key, 100 * age)
    entry = (tmp_path / "newest.avatar").stat().st_size

    cache.load("oldest")

    AvatarCache(tmp_path, 3 * entry).save("new", some_avatar())
    assert {path.stem for path in tmp_path.iterdir()} == {"new", "oldest", "newest"}


def test_a_cache_without_room_keeps_nothing_and_works(tmp_path: Path) -> None:
    cache = AvatarCache(tmp_path, 0)

    cache.save("key", some_avatar())

    assert cache.load("key") is None
    assert not list(tmp_path.iterdir())


def test_a_face_too_large_to_keep_does_not_drive_out_the_others(tmp_path: Path) -> None:
    cache = AvatarCache(tmp_path, 100_000)
    cache.save("small", some_avatar())

    cache.save("large", written(some_frames(precision=np.float32)))

    assert [path.stem for path in tmp_path.iterdir()] == ["small"]


# -- little of everything --------------------------------------------------------------------------


def test_a_long_face_is_saved_and_loaded_in_little_memory(cache: AvatarCache) -> None:
    avatar = written(some_frames(frames=3000, precision=np.float16))

    tracemalloc.start()
    try:
        cache.save("key", avatar)
        loaded = cache.load("key")
        assert loaded is not None
        faces = sum(frame is not None for frame in read(loaded))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert faces == 3000 - loaded.missing
    assert loaded.file.size_bytes > 40_000_000
    assert peak < 4_000_000


def test_loading_again_and_again_leaves_nothing_open(cache: AvatarCache) -> None:
    cache.save("key", some_avatar())
    before = psutil.Process().num_fds()

    for turn in range(300):
        cache.save("key", some_avatar(turn % 2))
        assert cache.load("key") is not None
        (cache.directory / "damaged.avatar").write_bytes(bytes(500))
        assert cache.load("damaged") is None

    assert psutil.Process().num_fds() == before


# -- company ---------------------------------------------------------------------------------------


def test_a_face_in_use_outlives_its_entry(cache: AvatarCache) -> None:
    cache.save("key", some_avatar(1))
    loaded = cache.load("key")
    assert loaded is not None

    cache.save("key", some_avatar(2))
    for entry in cache.directory.iterdir():
        entry.unlink()

    assert told(read(loaded)) == told(some_frames(1))


def busy_worker(directory: Path, room: int) -> int:
    """Save and load the same few faces over and over; return how often a face came back."""
    cache, hits = AvatarCache(directory, room), 0
    for turn in range(120):
        key = str(turn % 4)
        cache.save(key, some_avatar(int(key)))
        loaded = cache.load(key)
        assert loaded is None or told(read(loaded)) == told(some_frames(int(key)))
        hits += loaded is not None
    return hits


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    """Employ two processes."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def test_two_workers_that_save_the_same_faces_leave_whole_entries(
    cache: AvatarCache, workers: ProcessPoolExecutor
) -> None:
    done = [workers.submit(busy_worker, cache.directory, ROOMY) for _ in range(2)]

    hits = [worker.result() for worker in done]

    assert hits == [120, 120]
    for key in range(4):
        loaded = cache.load(str(key))
        assert loaded is not None
        assert told(read(loaded)) == told(some_frames(key))
    assert len(list(cache.directory.iterdir())) == 4


def test_two_workers_that_make_room_at_once_do_not_fail(
    cache: AvatarCache, workers: ProcessPoolExecutor
) -> None:
    done = [workers.submit(busy_worker, cache.directory, 9_000) for _ in range(2)]

    for worker in done:
        worker.result()

    assert not list(cache.directory.glob("*.part"))


#: A worker whose disk takes no more than 1000 bytes of a file.
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from inference.avatar_cache import AvatarCache
from tests.avatars import some_frames, written
avatar = written(some_frames())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    AvatarCache(Path(sys.argv[1]), 10**9).save("key", avatar)
except OSError:
    sys.exit(7)
"""


def test_a_face_for_which_the_disk_has_no_room_leaves_nothing_there(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, f"{tmp_path}"], check=False)

    assert done.returncode == 7
    assert list(tmp_path.iterdir()) == []
