"""The weightless mouth: closed in silence, wider when louder, and still where no mouth is."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from handler.job import Params
from inference.avatar import AvatarFrame
from inference.batching import Batch
from inference.frame import Box, Frame, Planes
from inference.media.limits import Limits
from inference.media.sound import RATE_HZ, read_samples
from inference.mouth import Shot
from inference.preview import STEP_SAMPLES, PreviewMouth, open_mouth, preview_parts
from inference.preview_mask import MouthMask

FPS = Fraction(25)
FACE = Box(60, 20, 260, 220)
#: Where the lips of that face meet.
LIPS = 20 + 0.8 * 200


def spoken(loudness: NDArray[np.float64], fps: Fraction = FPS) -> Iterator[NDArray[np.float32]]:
    """Speak each frame's part of a voice with some loudness, in chunks of a second."""
    moments = np.arange(int(len(loudness) / fps * RATE_HZ))
    frame = np.minimum((moments * float(fps) / RATE_HZ).astype(int), len(loudness) - 1)
    wave = (loudness[frame] * np.sin(2 * np.pi * 200 / RATE_HZ * moments)).astype(np.float32)
    yield from (wave[start : start + RATE_HZ] for start in range(0, len(wave), RATE_HZ))


def cues(loudness: list[float] | NDArray[np.float64], fps: Fraction = FPS) -> NDArray[np.float64]:
    """Return how far the mouth opens in each frame."""
    levels = np.asarray(loudness, float)
    return PreviewMouth().listen(spoken(levels, fps), fps, len(levels))


# -- listening -------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_a_silent_voice_never_opens_the_mouth(noise: float) -> None:
    assert not cues([noise] * 30).any()


def test_a_pause_closes_the_mouth_for_all_of_it() -> None:
    opening = cues([0.3] * 20 + [0.0] * 20 + [0.3] * 20)

    # Lips take a frame to come to rest.
    assert not opening[21:39].any()
    assert opening[2:18].min() > 0.9
    assert opening[42:58].min() > 0.9


def test_hiss_in_a_pause_does_not_keep_the_mouth_open() -> None:
    opening = cues([0.3] * 20 + [0.02] * 20 + [0.3] * 20)

    assert not opening[21:39].any()


def test_the_mouth_opens_wider_the_louder_the_voice() -> None:
    steps = np.repeat([0.05, 0.1, 0.2, 0.3, 0.4], 8)

    opening = cues(steps)

    middles = opening[4::8]
    assert (np.diff(middles) > 0).all()
    assert np.corrcoef(opening, steps)[0, 1] > 0.95


def test_a_quiet_recording_opens_the_mouth_as_wide_as_a_loud_one() -> None:
    speech = np.abs(np.sin(np.arange(80) / 3)) ** 2

    quiet, loud = cues(0.05 * speech), cues(0.8 * speech)

    assert np.abs(quiet - loud).max() < 0.1


def test_a_single_click_does_not_set_the_scale() -> None:
    opening = cues([0.1] * 50 + [1.0] + [0.1] * 49)

    assert opening[:40].min() > 0.9


@pytest.mark.parametrize("fps", ["12", "24000/1001", "25", "30", "60"])
def test_the_mouth_is_in_step_with_the_voice_at_any_rate(fps: str) -> None:
    rate = Fraction(fps)
    speaking = np.arange(int(10 * rate)) // rate % 2 == 1

    opening = cues(np.where(speaking, 0.3, 0.0), rate)

    scores = [np.corrcoef(np.roll(speaking, lag), opening)[0, 1] for lag in (-2, -1, 0, 1, 2)]
    assert scores.index(max(scores)) == 2


@pytest.mark.parametrize("frames", [1, 10, 100])
def test_there_is_a_cue_for_each_frame_however_short_the_voice(frames: int) -> None:
    voice = iter([np.full(RATE_HZ // 5, 0.3, np.float32)])

    opening = PreviewMouth().listen(voice, FPS, frames)

    assert opening.shape == (frames,)
    # Once the voice has ended, the mouth is closed.
    assert not opening[7:].any()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_an_opening_is_never_less_than_closed_or_more_than_wide(loudness: list[float]) -> None:
    opening = cues(loudness)

    assert len(opening) == len(loudness)
    assert np.isfinite(opening).all()
    assert opening.min() >= 0
    assert opening.max() <= 1


# -- speaking --------------------------------------------------------------------------------------


def bright(width: int = 320, height: int = 360) -> Frame:
    """Return a bright picture with some texture."""
    size = Frame.size_bytes(width, height)
    return Frame(np.random.default_rng(1).integers(120, 200, size, np.uint8), width, height)


@pytest.fixture
def frame() -> Frame:
    """Return a picture with room for the face."""
    return bright()


def mouth_of(frame: Frame, **options: int) -> tuple[AvatarFrame, Planes]:
    """Return the place of the mouth, and what is seen there."""
    place = MouthMask().fit(FACE, frame.width, frame.height, Params(**options))
    assert place is not None
    return place, frame.crop(place.box)


def test_frames_without_a_face_and_moments_of_silence_are_left_as_they_are(frame: Frame) -> None:
    place = MouthMask().fit(FACE, 320, 360, Params())
    shots = [Shot(frame, None, 0.9), Shot(frame, place, 0.0), Shot(frame, place, 0.5)]

    spoken_shots = list(PreviewMouth().speak(shots, Batch(1)))

    assert [shot for shot, _ in spoken_shots] == shots
    assert [face is None for _, face in spoken_shots] == [True, True, False]


def test_a_closed_mouth_is_the_mouth_that_was_filmed(frame: Frame) -> None:
    place, mouth = mouth_of(frame)

    closed = open_mouth(mouth, place, 0)

    for found, due in zip(closed, mouth, strict=True):
        assert np.array_equal(found, due)


def test_an_opening_mouth_does_not_change_what_was_filmed(frame: Frame) -> None:
    before = frame.buffer.copy()
    place, mouth = mouth_of(frame)

    opened = open_mouth(mouth, place, 1)

    assert np.array_equal(frame.buffer, before)
    for found, due in zip(opened, mouth, strict=True):
        assert (found.shape, found.dtype) == (due.shape, due.dtype)


def test_a_wider_mouth_shows_more_of_its_inside(frame: Frame) -> None:
    place, mouth = mouth_of(frame)

    dark = [
        int((open_mouth(mouth, place, opening).y < 80).sum()) for opening in (0, 0.25, 0.5, 0.75, 1)
    ]

    assert dark[0] == 0
    assert dark == sorted(set(dark))


@pytest.mark.parametrize("opening", [0.3, 1.0])
def test_nothing_moves_at_the_edges_of_the_mouth(frame: Frame, opening: float) -> None:
    place, mouth = mouth_of(frame)

    opened = open_mouth(mouth, place, opening)

    height, width = mouth.y.shape
    assert np.array_equal(opened.y[0], mouth.y[0])
    for side in (slice(0, width // 8), slice(-width // 8, None)):
        assert np.array_equal(opened.y[:, side], mouth.y[:, side])
    assert (opened.y[int(0.9 * height) :] > 100).all()


def test_nothing_jumps_at_the_lower_edge_either(frame: Frame) -> None:
    place, mouth = mouth_of(frame)
    mouth.y[:] = np.linspace(100, 200, len(mouth.y)).astype(np.uint8)[:, None]

    opened = open_mouth(mouth, place, 1)

    assert np.abs(opened.y[-1].astype(int) - mouth.y[-1]).max() <= 2


@pytest.mark.parametrize(
    ("height", "options"),
    [
        (360, {}),
        (360, {"extra_margin": 0}),
        (360, {"extra_margin": 60}),
        # The picture ends below the lips, so that there is less room for the mouth.
        (200, {}),
    ],
    ids=["as usual", "without a margin", "with a wide margin", "at the lower edge"],
)
def test_the_lips_part_where_they_meet(height: int, options: dict[str, int]) -> None:
    place, mouth = mouth_of(bright(height=height), **options)

    opened = open_mouth(mouth, place, 0.3)

    rows, columns = np.nonzero(opened.y < 80)
    assert place.box.top + rows.min() == pytest.approx(LIPS, abs=0.03 * FACE.width)
    assert place.box.left + columns.mean() == pytest.approx(160, abs=0.02 * FACE.width)


def test_the_preview_says_what_it_is_and_what_it_heeds() -> None:
    parts = preview_parts()

    assert (parts.name, parts.weights) == ("preview", None)
    assert parts.options == {"bbox_shift", "extra_margin"}


@given(st.lists(st.integers(0, 90), min_size=1, max_size=8))
def test_the_mouth_does_not_depend_on_how_the_voice_is_cut(steps: list[int]) -> None:
    cuts = [STEP_SAMPLES * step for step in np.cumsum(steps)]
    voice = np.random.default_rng(1).normal(0, 0.1, RATE_HZ).astype(np.float32)
    voice *= np.abs(np.sin(np.arange(RATE_HZ) / 1500)).astype(np.float32)

    whole = PreviewMouth().listen([voice], Fraction(25), 25)
    parts = PreviewMouth().listen(np.split(voice, cuts), Fraction(25), 25)

    assert np.array_equal(whole, parts)


def test_the_mouth_follows_the_sample_voice(voice: Path) -> None:
    samples = np.concatenate(list(read_samples(voice, Limits())))
    rms = np.sqrt(np.mean(np.square(samples[: 150 * 640].reshape(150, 640)), axis=1))

    opening = PreviewMouth().listen(read_samples(voice, Limits()), Fraction(25), 150)

    assert np.corrcoef(opening, rms)[0, 1] > 0.8
    # The pause between the two sentences, less a frame in which the lips come to rest.
    assert not opening[80:89].any()
