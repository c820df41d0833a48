"""The points of a person: which one is which in a mirror."""

from __future__ import annotations

import numpy as np
import pytest

from inference.faces.keypoints import FACE, KEYPOINTS, MIRRORED
from tests.tiny_dwpose import face_points


def test_each_point_is_one_other_or_itself_in_a_mirror() -> None:
    assert sorted(MIRRORED) == list(range(KEYPOINTS))


def test_a_mirror_in_a_mirror_changes_nothing() -> None:
    assert [MIRRORED[point] for point in MIRRORED] == list(range(KEYPOINTS))


@pytest.mark.parametrize(
    ("point", "mirrored"),
    [
        pytest.param(0, 0, id="nose"),
        pytest.param(1, 2, id="eye"),
        pytest.param(9, 10, id="wrist"),
        pytest.param(17, 20, id="large toe"),
        pytest.param(19, 22, id="heel"),
        pytest.param(91, 112, id="wrist of the hand"),
        pytest.param(111, 132, id="tip of the little finger"),
    ],
)
def test_left_becomes_right_in_a_mirror(point: int, mirrored: int) -> None:
    assert MIRRORED[point] == mirrored


def test_a_face_is_the_same_in_a_mirror() -> None:
    points = face_points((0.5, 0.5, 0.4), (512, 512))

    mirrored = points[np.array(MIRRORED[FACE]) - FACE.start]

    assert mirrored == pytest.approx((512, 0) + points * (-1, 1))
