"""The path of a face: smooth where it was seen, honest where it was not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.faces.path import Face, path_boxes
from inference.frame import Box

FPS, STRIDE = 25.0, 5


def face(x: float = 300, y: float = 200, width: float = 100) -> Face:
    """Return a face as a look finds it."""
    return np.array([x, y, width])


def boxes(looks: list[Face | None], total: int | None = None) -> list[Box | None]:
    """Return the boxes of a film of which every fifth frame was looked at."""
    return path_boxes(looks, STRIDE, len(looks) * STRIDE if total is None else total, FPS)


def seen(found: list[Box | None]) -> list[int]:
    """Return the frames that have a face."""
    return [frame for frame, box in enumerate(found) if box is not None]


def test_a_face_that_keeps_still_has_one_box() -> None:
    found = boxes([face()] * 6)

    assert found == [Box(250, 150, 350, 250)] * 30


def test_there_is_an_answer_for_each_frame_even_behind_the_last_look() -> None:
    found = boxes([face()] * 6, total=27)

    assert found == [Box(250, 150, 350, 250)] * 27


def test_no_film_has_no_boxes() -> None:
    assert path_boxes([], STRIDE, 0, FPS) == []


def test_a_face_that_nobody_saw_is_nowhere() -> None:
    assert boxes([None] * 6) == [None] * 30


def test_a_moving_face_is_followed_between_the_looks() -> None:
    found = boxes([face(x=300 + 20 * look) for look in range(10)])

    centres = [(box.left + box.right) / 2 for box in found if box]
    assert len(centres) == 50
    # Away from the ends, which have no neighbours to be smoothed with.
    for frame in range(12, 34):
        assert centres[frame] == pytest.approx(300 + 4 * frame, abs=2)
    assert max(np.diff(centres)) <= 6


def test_a_trembling_box_is_calmed() -> None:
    found = boxes([face(x=300 + 6 * (-1) ** look) for look in range(20)])

    # Away from the ends, which have no neighbours to be smoothed with.
    centres = [(box.left + box.right) / 2 for box in found[10:-10] if box]
    assert max(centres) - min(centres) <= 3


def test_a_face_unseen_for_a_moment_was_only_turned_away() -> None:
    found = boxes([face(), face(), None, None, face(), face()])

    assert found == [Box(250, 150, 350, 250)] * 30


def test_a_face_unseen_for_longer_is_gone_in_between() -> None:
    found = boxes([face(), face(), *[None] * 4, face(), face()])

    # A look speaks for the frames nearest to it.
    assert seen(found) == [*range(8), *range(28, 40)]


def test_a_face_that_comes_late_and_leaves_early_is_there_in_between() -> None:
    found = boxes([None, None, face(), face(), face(), None, None])

    assert seen(found) == list(range(8, 23))


def test_a_face_seen_once_was_none() -> None:
    found = boxes([None, None, face(), None, None])

    assert seen(found) == []


@pytest.mark.parametrize("looks", [1, 2])
def test_in_a_film_of_a_moment_a_single_look_must_do(looks: int) -> None:
    found = boxes([face(), *[None] * (looks - 1)], total=5 * looks)

    assert seen(found)[:3] == [0, 1, 2]


def test_something_taken_for_a_face_elsewhere_does_not_draw_the_box_there() -> None:
    found = boxes([face(), face(), face(), face(x=600), face(), face(), face()])

    assert {box for box in found if box} == {Box(250, 150, 350, 250)}


def test_a_face_missed_once_is_bridged_even_if_something_else_was_taken_for_it() -> None:
    found = boxes([face(), face(), face(), face(x=600), face(), face(), face()])

    assert None not in found


def test_a_cut_to_another_face_does_not_slide_from_one_to_the_other() -> None:
    found = boxes([face(x=300)] * 4 + [face(x=600)] * 4)

    assert {box for box in found if box} == {Box(250, 150, 350, 250), Box(550, 150, 650, 250)}
    assert found.index(Box(550, 150, 650, 250)) in range(17, 21)
    assert None not in found


def test_a_face_that_grows_has_a_growing_box() -> None:
    found = boxes([face(width=100 + 10 * look) for look in range(10)])

    widths = [box.width for box in found if box]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (pytest.approx(100, abs=8), pytest.approx(190, abs=8))


LOOKS = st.lists(
    st.none() | st.builds(face, st.floats(0, 1920), st.floats(0, 1080), st.floats(20, 900)),
    min_size=1,
    max_size=30,
)


@given(LOOKS, st.integers(1, 24), st.floats(1, 120), st.data())
def test_whatever_was_seen_there_is_one_answer_for_each_frame(
    looks: list[Face | None], stride: int, fps: float, data: st.DataObject
) -> None:
    total = (len(looks) - 1) * stride + data.draw(st.integers(1, stride))

    found = path_boxes(looks, stride, total, fps)

    assert len(found) == total
    known = [look for look in looks if look is not None]
    for box in found:
        if box is not None:
            widths = [look[2] for look in known]
            assert min(widths) - 2 <= box.width <= max(widths) + 2
