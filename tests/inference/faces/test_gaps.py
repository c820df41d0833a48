"""Frames in which the face was missed: bridged for a moment, honest for longer."""

from __future__ import annotations

from fractions import Fraction

import pytest

from inference.faces.gaps import bridge_gaps
from inference.frame import Box

FPS = Fraction(25)
#: At 25 frames a second, of the 0.6 seconds that are bridged.
LONGEST_GAP = 14


def box(left: int = 100, top: int = 50, side: int = 80) -> Box:
    """Return where a face was seen."""
    return Box(left, top, left + side, top + side)


def test_what_was_seen_stays_as_it_was_seen() -> None:
    seen = [box(100), box(107, 53), box(98, side=90), None, box(120)]

    bridged = bridge_gaps(seen, FPS)

    assert [bridged[frame] for frame in (0, 1, 2, 4)] == [seen[frame] for frame in (0, 1, 2, 4)]


def test_a_face_missed_for_some_frames_moves_and_grows_evenly_through_them() -> None:
    bridged = bridge_gaps([box(100, 50, 80), None, None, None, box(120, 42, 88)], FPS)

    assert bridged[1:4] == [box(105, 48, 82), box(110, 46, 84), box(115, 44, 86)]


def test_between_two_pixels_it_is_on_the_nearer_one() -> None:
    assert bridge_gaps([box(100), None, None, box(104)], FPS)[1:3] == [box(101), box(103)]


def test_a_face_missed_for_more_than_a_moment_is_not_made_up() -> None:
    moment = [box(), *[None] * LONGEST_GAP, box()]
    longer = [box(), *[None] * (LONGEST_GAP + 1), box()]

    assert None not in bridge_gaps(moment, FPS)
    assert bridge_gaps(longer, FPS) == longer


@pytest.mark.parametrize(("fps", "bridged"), [(Fraction(30000, 1001), 17), (Fraction(60), 35)])
def test_a_moment_is_as_long_at_any_frame_rate(fps: Fraction, bridged: int) -> None:
    assert None not in bridge_gaps([box(), *[None] * bridged, box()], fps)
    assert None in bridge_gaps([box(), *[None] * (bridged + 1), box()], fps)


def test_before_the_first_face_and_after_the_last_there_is_none() -> None:
    film = [None, None, box(), None, box(), None]

    assert bridge_gaps(film, FPS) == [None, None, box(), box(), box(), None]


def test_between_two_scenes_no_face_flies_across() -> None:
    film = [box(100), None, None, box(181)]

    assert bridge_gaps(film, FPS) == film
    assert None not in bridge_gaps([box(100), None, None, box(180)], FPS)


@pytest.mark.parametrize("film", [[], [None], [None, None], [box()]])
def test_a_film_without_gaps_between_faces_stays_as_it_is(film: list[Box | None]) -> None:
    assert bridge_gaps(film, FPS) == film
