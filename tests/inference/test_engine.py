"""What every engine keeps to, whatever moves its mouths; a new engine is one more row here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handler.errors import Cancelled, FaceNotFound, MediaUnreadable
from handler.ports import Clip, Fetched, Scene
from handler.progress import Tick
from handler.result import CacheUse
from inference.avatar import Avatar
from inference.avatar_cache import AvatarCache
from inference.engine import LipSync
from inference.media.encoder import Encoder
from inference.media.limits import Limits
from inference.media.probe import FfprobeGate
from inference.musetalk.device import Device
from inference.musetalk.parts import musetalk_parts, read_musetalk
from inference.parts import Parts
from inference.preview import preview_parts
from tests import clips
from tests.screening import describe, pictures

PATIENT_SECONDS = 60
ROOMY_BYTES = 10**9
SIDE_PIXELS = 256
#: A clip of two frames that is shown forth and back, as long as the voice: three frames.
SOURCE_FRAMES, VOICE_SECONDS, FRAMES = 2, 0.12, 3
#: Many more than so few frames are worth.
MOST_TICKS = 50


def preview(weights: Path) -> Parts:
    """Build the preview, which has no use for weights."""
    return preview_parts()


def musetalk(weights: Path) -> Parts:
    """Build MuseTalk with small networks."""
    return musetalk_parts(read_musetalk(weights), Device.choose("cpu"), batch_size=2)


ENGINES: dict[str, Callable[[Path], Parts]] = {"preview": preview, "musetalk": musetalk}


@pytest.fixture(scope="module", params=ENGINES)
def parts(request: pytest.FixtureRequest, weights: Path) -> Parts:
    """Return what an engine is made of."""
    return ENGINES[request.param](weights)


def engine_of(parts: Parts, cache: Path) -> LipSync:
    """Build an engine that remembers faces in a directory."""
    return LipSync(parts, AvatarCache(cache, ROOMY_BYTES), Limits(), Encoder.LIBX264)


@pytest.fixture
def engine(parts: Parts, tmp_path: Path) -> LipSync:
    """Return an engine that knows no face."""
    return engine_of(parts, tmp_path / "avatars")


@pytest.fixture(autouse=True)
def nothing_runs_on(running: Callable[[], list[str]]) -> Iterator[None]:
    """Look for threads and children after each test."""
    before = set(threading.enumerate())

    yield

    assert set(threading.enumerate()) <= before
    assert running() == []


# -- scenes ----------------------------------------------------------------------------------------


def scene_of(face: Path, voice: Path, **wishes: Any) -> Scene:
    """Return a scene as the core hands it over."""
    gate = FfprobeGate(Limits())
    return Scene(
        face=fetched(face),
        video=gate.face(face),
        voice=fetched(voice),
        audio=gate.voice(voice),
        job=clips.job(**wishes),
    )


def fetched(path: Path) -> Fetched:
    """Return a file as a download brings it."""
    content = path.read_bytes()
    return Fetched(path, len(content), sha256(content).hexdigest())


@pytest.fixture(scope="module")
def material(face: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Film and record what the scenes need."""
    place = tmp_path_factory.mktemp("material")
    words = f"-vf scale={SIDE_PIXELS}:{SIDE_PIXELS} -frames:v {SOURCE_FRAMES} {clips.X264}"
    clips.run_ffmpeg("-i", f"{face}", *words.split(), f"{place}/face.mp4")
    clips.sound(place / "voice.wav", VOICE_SECONDS, loudness=0.3)
    return place


@pytest.fixture(scope="module")
def scene(material: Path) -> Scene:
    """Return a scene of three frames whose encoder loses nothing."""
    params = {"crf": 0, "batch_size": 64}
    return scene_of(material / "face.mp4", material / "voice.wav", params=params)


# -- takes -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Take:
    """What an engine made of a scene, and what it told meanwhile."""

    avatar: Avatar
    clip: Clip
    prepared: list[float] = field(default_factory=list)
    animated: list[float] = field(default_factory=list)

    @property
    def frames(self) -> NDArray[np.uint8]:
        """Return the luma of the finished clip: [frames, height, width]."""
        return np.stack(list(pictures(self.clip.path)))


def take(engine: LipSync, scene: Scene, place: Path) -> Take:
    """Film a scene from its beginning to its end."""
    prepared: list[float] = []
    animated: list[float] = []
    avatar = engine.prepare(scene, noting(prepared))
    clip = engine.animate(avatar, scene, place / "take.mp4", noting(animated))
    return Take(avatar, clip, prepared, animated)


def noting(ticks: list[float]) -> Tick:
    """Return a tick that is noted, and does not wait for ever for a turn that never comes."""

    def tick(fraction: float) -> None:
        ticks.append(fraction)
        assert len(ticks) < MOST_TICKS, "The engine is not free."

    return tick


@pytest.fixture(scope="module")
def first(parts: Parts, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Take:
    """Return what an engine makes of the scene when nothing disturbs it."""
    place = tmp_path_factory.mktemp("first")
    return take(engine_of(parts, place / "avatars"), scene, place)


def cancel_at(number: int) -> Tick:
    """Return a tick that takes the job back when it is called for the nth time."""
    calls = iter(range(1, number))

    def tick(fraction: float) -> None:
        if next(calls, None) is None:
            raise Cancelled("taken back")

    return tick


def ignore(fraction: float) -> None:
    """Take no interest."""


# -- what it tells and writes ----------------------------------------------------------------------


def test_both_halves_rise_from_their_beginning_to_their_end(first: Take) -> None:
    for ticks in (first.prepared, first.animated):
        assert ticks == sorted(ticks)
        assert 0 <= ticks[0] < ticks[-1] == 1
        assert max(ticks[:-1]) < 1


def test_the_file_holds_exactly_the_frames_that_were_promised(first: Take) -> None:
    clip, found = first.clip, describe(first.clip.path)["video"]

    assert clip.frames == int(found["nb_frames"]) == len(first.frames) == FRAMES
    assert (clip.width, clip.height) == (found["width"], found["height"]) == (SIDE_PIXELS,) * 2
    assert clip.fps == Fraction(found["r_frame_rate"]) == 25


def test_the_mouth_moves_and_the_rest_of_the_picture_stays(first: Take, material: Path) -> None:
    source = list(pictures(material / "face.mp4"))

    for picture, index in zip(first.frames, (0, 1, 1), strict=True):
        rows = (picture != source[index]).any(axis=1).nonzero()[0]
        assert rows.size
        assert 0.2 * SIDE_PIXELS < rows[0] < rows[-1] < 0.42 * SIDE_PIXELS


def test_each_step_says_how_long_it_was_busy(first: Take) -> None:
    steps = {**first.avatar.engine_seconds, **first.clip.engine_seconds}

    assert steps.keys() == {"track", "make", "listen", "mouth", "paste", "encode"}
    assert min(steps.values()) >= 0
    assert first.clip.generation_seconds == steps["mouth"]


# -- the same again --------------------------------------------------------------------------------


def test_the_same_job_makes_the_same_video_on_any_worker(
    engine: LipSync, scene: Scene, first: Take, tmp_path: Path
) -> None:
    again = take(engine, scene, tmp_path)

    assert again.avatar.cache is first.avatar.cache is CacheUse.MISS
    assert again.clip.path.read_bytes() == first.clip.path.read_bytes()


class Blind:
    """Stands where a part must not be needed."""

    def track(self, *_: object) -> Any:
        """Fail."""
        raise AssertionError("A known face was tracked again.")

    def make(self, *_: object) -> Any:
        """Fail."""
        raise AssertionError("A known face was read again.")


def test_a_known_face_is_neither_tracked_nor_read_again(
    parts: Parts, engine: LipSync, scene: Scene, first: Take, tmp_path: Path
) -> None:
    engine.prepare(scene, ignore)
    blind = engine_of(replace(parts, tracker=Blind(), maker=Blind()), tmp_path / "avatars")

    again = take(blind, scene, tmp_path)

    assert again.avatar.cache is CacheUse.HIT
    assert again.avatar.engine_seconds == {}
    assert np.array_equal(again.frames, first.frames)


@pytest.mark.parametrize("size", [1, 64])
def test_the_size_of_a_batch_makes_no_difference_that_can_be_seen(
    parts: Parts, scene: Scene, first: Take, tmp_path: Path, size: int
) -> None:
    engine = engine_of(replace(parts, batch_size=64), tmp_path / "avatars")
    job = clips.job(params={"crf": 0, "batch_size": size})

    other = take(engine, replace(scene, job=job), tmp_path)

    assert other.clip.batch_size == (size if "batch_size" in parts.options else None)
    for frame, expected in zip(other.frames, first.frames, strict=True):
        # What lies between two levels may be rounded either way.
        assert np.abs(frame.astype(int) - expected).max() <= 1


def test_a_job_cannot_raise_the_size_of_a_batch(parts: Parts, scene: Scene, first: Take) -> None:
    assert scene.job.params.batch_size == 64

    assert first.clip.batch_size == (2 if "batch_size" in parts.options else None)


# -- jobs that are taken back ----------------------------------------------------------------------


def test_a_job_can_be_taken_back_at_any_tick_of_its_first_half(
    engine: LipSync, scene: Scene, first: Take, tmp_path: Path, running: Callable[[], list[str]]
) -> None:
    before = set(threading.enumerate())

    for number in range(1, len(first.prepared) + 1):
        with pytest.raises(Cancelled) as caught:
            engine.prepare(scene, cancel_at(number))
        # At once, and not when the error is forgotten.
        assert (set(threading.enumerate()), running()) == (before, []), caught

    assert np.array_equal(take(engine, scene, tmp_path).frames, first.frames)


def test_a_job_can_be_taken_back_at_any_tick_of_its_second_half(
    engine: LipSync, scene: Scene, first: Take, tmp_path: Path, running: Callable[[], list[str]]
) -> None:
    before, target = set(threading.enumerate()), tmp_path / "lost.mp4"

    for number in range(1, len(first.animated) + 1):
        with pytest.raises(Cancelled) as caught:
            engine.animate(first.avatar, scene, target, cancel_at(number))
        assert (set(threading.enumerate()), running()) == (before, []), caught

    assert np.array_equal(take(engine, scene, tmp_path).frames, first.frames)


class Pause:
    """A tick at which a job stops until it may go on."""

    def __init__(self) -> None:
        self.reached, self.over = threading.Event(), threading.Event()

    def __call__(self, fraction: float) -> None:
        self.reached.set()
        assert self.over.wait(PATIENT_SECONDS)


def test_jobs_that_wait_for_their_turn_can_be_taken_back(
    engine: LipSync, scene: Scene, first: Take, tmp_path: Path
) -> None:
    pause, lost = Pause(), tmp_path / "lost.mp4"
    with ThreadPoolExecutor(1) as other:
        clip = other.submit(engine.animate, first.avatar, scene, tmp_path / "take.mp4", pause)
        assert pause.reached.wait(PATIENT_SECONDS)

        with pytest.raises(Cancelled):
            engine.prepare(scene, cancel_at(1))
        with pytest.raises(Cancelled):
            engine.animate(first.avatar, scene, lost, cancel_at(1))

        pause.over.set()
        undisturbed = Take(first.avatar, clip.result(PATIENT_SECONDS))
    assert np.array_equal(undisturbed.frames, first.frames)
    assert not lost.exists()


# -- what cannot be filmed -------------------------------------------------------------------------


def test_a_video_without_a_face_is_refused_by_name(
    engine: LipSync, material: Path, tmp_path: Path
) -> None:
    # In the dark, not even the tiny tracker sees a face.
    night = tmp_path / "night.mp4"
    dark = "-f lavfi -i color=black:size=256x256:duration=0.2 -pix_fmt yuv420p"
    clips.run_ffmpeg(*dark.split(), f"{night}")

    with pytest.raises(FaceNotFound):
        engine.prepare(scene_of(night, material / "voice.wav"), ignore)


def test_a_video_that_is_cut_off_is_refused_by_name(
    engine: LipSync, face: Path, tmp_path: Path
) -> None:
    # Only the index at its beginning says how long it was.
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    words = f"-t 1 -vf scale=256:256 {clips.X264} -movflags +faststart"
    clips.run_ffmpeg("-i", f"{face}", *words.split(), f"{whole}")
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    voice = clips.sound(tmp_path / "voice.wav", seconds=1)

    with pytest.raises(MediaUnreadable):
        engine.prepare(scene_of(cut, voice), ignore)
