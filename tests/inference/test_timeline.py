"""Timing: which source frame shows when, for voices longer and shorter than the face."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.job import SyncMode
from inference.timeline import output_frames, passes, source_frames_needed, voice_frames

MODES = st.sampled_from(list(SyncMode))
LENGTHS = st.integers(1, 400)


def order(mode: SyncMode, source: int, total: int) -> list[int]:
    """Return the source's frames in the order in which they are shown."""
    return [index for indices in passes(mode, source, total) for index in indices]


# -- how long --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "longer_voice", "shorter_voice"),
    [
        (SyncMode.BOUNCE, 30, 7),
        (SyncMode.LOOP, 30, 7),
        (SyncMode.REMAP, 30, 7),
        (SyncMode.CUT_OFF, 10, 7),
        (SyncMode.SILENCE, 30, 10),
    ],
)
def test_the_result_is_as_long_as_the_mode_says(
    mode: SyncMode, longer_voice: int, shorter_voice: int
) -> None:
    assert output_frames(mode, voice=30, source=10) == longer_voice
    assert output_frames(mode, voice=7, source=10) == shorter_voice


@pytest.mark.parametrize(
    ("seconds", "fps", "frames"),
    [
        (2.0, "25", 50),
        (2.039, "25", 50),
        (2.04, "25", 51),
        (1.001, "24000/1001", 24),
        (0.3, "30", 9),
        (0.7, "30", 21),
        (10.01, "30000/1001", 300),
        (0.0000625, "25", 1),
    ],
)
def test_a_voice_lasts_its_whole_frames_and_at_least_one(
    seconds: float, fps: str, frames: int
) -> None:
    assert voice_frames(seconds, Fraction(fps)) == frames


@given(st.integers(1, 16_000 * 600), st.sampled_from(["24000/1001", "25", "30", "60000/1001"]))
def test_a_frame_is_lost_to_rounding_never_a_frame_gained(samples: int, fps: str) -> None:
    frames = voice_frames(samples / 16_000, Fraction(fps))

    exact = Fraction(samples, 16_000) * Fraction(fps)
    assert frames == max(1, exact.numerator // exact.denominator)


@given(MODES, LENGTHS, LENGTHS)
def test_enough_of_the_source_is_known_before_it_is_shown(
    mode: SyncMode, source: int, voice: int
) -> None:
    needed = source_frames_needed(mode, voice)

    known = source if needed is None else min(source, needed)
    total = output_frames(mode, voice, source)
    assert output_frames(mode, voice, known) == total
    assert order(mode, known, total) == order(mode, source, total)


# -- in which order --------------------------------------------------------------------------------


def test_forth_and_back_shows_both_ends_twice() -> None:
    shown = order(SyncMode.BOUNCE, 3, 14)

    assert shown == [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]


def test_a_loop_starts_again() -> None:
    shown = order(SyncMode.LOOP, 3, 8)

    assert shown == [0, 1, 2, 0, 1, 2, 0, 1]


def test_a_voice_that_outlasts_the_video_finds_it_going_back_in_silence_mode() -> None:
    shown = order(SyncMode.SILENCE, 3, 5)

    assert shown == [0, 1, 2, 2, 1]


def test_remapping_stretches() -> None:
    shown = order(SyncMode.REMAP, 3, 7)

    assert shown == [0, 0, 0, 1, 1, 2, 2]


def test_remapping_skips() -> None:
    shown = order(SyncMode.REMAP, 7, 3)

    assert shown == [0, 2, 4]


def test_a_still_image_is_shown_for_as_long_as_the_voice_lasts() -> None:
    assert order(SyncMode.BOUNCE, 1, 5) == order(SyncMode.REMAP, 1, 5) == [0] * 5


@given(MODES, LENGTHS, LENGTHS)
def test_there_is_a_source_frame_for_each_frame_of_the_result(
    mode: SyncMode, source: int, total: int
) -> None:
    runs = list(passes(mode, source, total))

    assert sum(len(run) for run in runs) == total
    assert all(run for run in runs)
    assert all(0 <= index < source for run in runs for index in run)


@given(MODES, LENGTHS, LENGTHS)
def test_each_pass_rises_or_falls_by_one(mode: SyncMode, source: int, total: int) -> None:
    for run in passes(mode, source, total):
        steps = {after - before for before, after in pairwise(run)}
        assert steps == {-1} or not any(step < 0 for step in steps)


@given(LENGTHS, LENGTHS)
def test_forth_and_back_never_jumps(source: int, total: int) -> None:
    shown = order(SyncMode.BOUNCE, source, total)

    assert all(abs(after - before) <= 1 for before, after in pairwise(shown))


@given(LENGTHS, LENGTHS)
def test_remapping_goes_evenly_from_the_first_frame_to_the_last(source: int, total: int) -> None:
    shown = order(SyncMode.REMAP, source, total)

    assert shown[0] == 0
    assert shown == sorted(shown)
    # What is left out at the end is no more than what is left out between two frames.
    assert source - 1 - shown[-1] <= source / total
    if total >= source:
        assert set(shown) == set(range(source))


@pytest.mark.parametrize("fps", ["24000/1001", "25", "30", "30000/1001", "60000/1001"])
def test_a_voice_that_ends_with_a_frame_never_loses_it(fps: str) -> None:
    rate = Fraction(fps)
    ends = [Fraction(16_000 * frames) / rate for frames in range(1, 5000)]

    for samples in (int(end) for end in ends if end.denominator == 1):
        frames = voice_frames(samples / 16_000, rate)

        assert frames == samples * rate / 16_000
