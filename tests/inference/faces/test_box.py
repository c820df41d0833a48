"""From landmarks to boxes: the reference's rule to the pixel, and nothing lost at the edges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.faces.box import Landmarks, crop_box, face_box, visible_box
from inference.frame import Box
from tests.tiny_dwpose import face_points

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "boxes.json").read_text())
SIZE = (400, 300)
ALL = np.full(68, fill_value=True)


def face(across: float = 0.5, down: float = 0.5, width: float = 0.25) -> Landmarks:
    """Return the landmarks of a face 100 pixels wide: 65 from the bridge of the nose to the chin.

    The other way it is 35 to the brows.
    """
    return face_points((across, down, width), SIZE).round(6)


# -- the rule --------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", GOLDEN)
def test_the_box_is_the_references(row: dict[str, Any]) -> None:
    detected = row["detector_box"] and Box(*row["detector_box"])

    box = face_box(np.array(row["landmarks"]), detected, row["bbox_shift"])

    assert box == (None if not any(row["box"]) else Box(*map(int, row["box"])))


def test_the_bridge_of_the_nose_is_the_middle_and_the_chin_the_bottom() -> None:
    box = face_box(face(), Box(0, 0, 1, 1), 0)

    assert box == Box(150, 85, 250, 215)


def test_what_is_between_two_pixels_belongs_to_the_one_nearer_to_the_origin() -> None:
    landmarks = face() + 0.9

    assert face_box(landmarks, Box(0, 0, 1, 1), 0) == face_box(face(), Box(0, 0, 1, 1), 0)
    # A point half a pixel outside is on the edge, not beyond it.
    assert face_box(face() - [150.5, 0], Box(9, 9, 10, 10), 0) == Box(0, 85, 99, 215)


def test_a_bridge_shifted_below_the_chin_leaves_no_box_but_the_detected_one() -> None:
    detected = Box(1, 2, 3, 4)

    assert face_box(face(), detected, 64) == Box(150, 213, 250, 215)
    assert face_box(face(), detected, 66) == detected


def test_looking_at_landmarks_does_not_change_them() -> None:
    landmarks = face()

    face_box(landmarks, Box(0, 0, 1, 1), 20)

    assert np.array_equal(landmarks, face())


# -- the edges -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("across", "down", "box"),
    [
        (0.5, 0.5, Box(150, 85, 250, 215)),
        (0.0, 0.5, Box(0, 85, 50, 215)),
        (1.0, 0.5, Box(350, 85, 400, 215)),
        (0.5, 0.1, Box(150, 0, 250, 95)),
        (0.5, 0.9, Box(150, 205, 250, 300)),
    ],
    ids=["inside", "left", "right", "top", "bottom"],
)
def test_of_a_face_at_the_edge_the_part_inside_is_visible(
    across: float, down: float, box: Box
) -> None:
    assert visible_box(face(across, down), ALL, *SIZE) == box


def test_of_a_face_that_looks_up_so_far_that_no_chin_is_below_the_nose_the_points_are_visible() -> (
    None
):
    landmarks = face()
    landmarks[29] = landmarks[8]

    assert visible_box(landmarks, ALL, *SIZE) == Box(150, 115, 250, 215)


def test_points_that_were_not_seen_do_not_count() -> None:
    landmarks, seen = face(), ALL.copy()
    for lost in (0, 1, 8):
        landmarks[lost], seen[lost] = (-90, -90), False

    # The jaw ends below its corner now, and the chin is a little higher.
    assert visible_box(landmarks, seen, *SIZE) == Box(153, 87, 250, 213)


def test_without_the_bridge_of_the_nose_the_points_are_visible() -> None:
    landmarks, seen = face(), ALL.copy()
    landmarks[29], seen[29] = (-90, -90), False

    assert visible_box(landmarks, seen, *SIZE) == Box(150, 115, 250, 215)


@pytest.mark.parametrize(("across", "down"), [(-0.2, 0.5), (1.2, 0.5), (0.5, -0.3), (0.5, 1.5)])
def test_a_face_outside_the_picture_is_invisible(across: float, down: float) -> None:
    assert visible_box(face(across, down), ALL, *SIZE) is None


def test_a_face_over_the_left_edge_is_cut_and_not_lost() -> None:
    landmarks = face(across=0.0)

    assert face_box(landmarks, visible_box(landmarks, ALL, *SIZE), 0) == Box(0, 85, 50, 215)


# -- the crop --------------------------------------------------------------------------------------


def test_the_margin_is_added_below_the_chin() -> None:
    assert crop_box(Box(150, 85, 250, 215), 10, *SIZE) == Box(150, 85, 250, 225)


def test_the_crop_ends_where_the_picture_ends() -> None:
    assert crop_box(Box(150, 85, 250, 295), 10, *SIZE) == Box(150, 85, 250, 300)
    assert crop_box(Box(-7, -5, 417, 333), 10, *SIZE) == Box(0, 0, 400, 300)


@pytest.mark.parametrize(
    "sliver",
    [Box(393, 10, 500, 99), Box(-90, 10, 7, 99), Box(10, 293, 90, 400), Box(90, 9, 80, 90)],
)
def test_a_sliver_of_a_face_is_none(sliver: Box) -> None:
    assert crop_box(sliver, 10, *SIZE) is None


SIDE = st.integers(-3000, 6000)


@given(SIDE, SIDE, SIDE, SIDE, st.integers(0, 100), st.integers(2, 4000), st.integers(2, 4000))
def test_a_crop_is_always_inside_the_picture(
    left: int, top: int, right: int, bottom: int, margin: int, width: int, height: int
) -> None:
    crop = crop_box(Box(left, top, right, bottom), margin, width, height)

    if crop is not None:
        assert 0 <= crop.left <= crop.right - 8 <= width - 8
        assert 0 <= crop.top <= crop.bottom - 8 <= height - 8
