"""The place of a mouth: around the lips, inside the picture, and soft at its edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.job import Params
from inference.avatar import AvatarFrame
from inference.frame import Box
from inference.preview_mask import MouthMask

#: A face 200 pixels wide in a picture of 1280x720; its lips meet at row 100 + 0.8 * 200.
FACE = Box(400, 100, 600, 300)
LIPS = 260


def place(face: Box = FACE, **options: Any) -> AvatarFrame:
    """Return where the mouth of a face goes."""
    fitted = MouthMask().fit(face, 1280, 720, Params(**options))
    assert fitted is not None
    return fitted


def test_the_place_lies_around_the_lips_and_within_the_face() -> None:
    box = place().box

    assert box.top < LIPS < box.bottom
    assert box.left + box.right == pytest.approx(FACE.left + FACE.right, abs=2)
    assert FACE.left < box.left < box.right < FACE.right
    assert box.top > FACE.top + 0.55 * FACE.width


def test_the_mask_is_as_large_as_the_place() -> None:
    mouth = place()

    assert mouth.mask.shape == (mouth.box.height, mouth.box.width)
    assert mouth.mask.dtype == np.uint8


def test_the_mask_is_full_in_the_middle_and_fades_evenly_to_nothing() -> None:
    mask = place().mask.astype(int)

    height, width = mask.shape
    assert (mask[height // 4 : -height // 4, width // 4 : -width // 4] == 255).all()
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) < 20
    assert np.array_equal(mask, mask[::-1])
    assert np.array_equal(mask, mask[:, ::-1])
    assert np.abs(np.diff(mask, axis=0)).max() < 40
    assert np.abs(np.diff(mask, axis=1)).max() < 40


@pytest.mark.parametrize("shift", [-50, -10, 10, 50])
def test_a_shift_moves_the_place_down_by_so_many_pixels(shift: int) -> None:
    moved, plain = place(bbox_shift=shift).box, place().box

    assert (moved.top - plain.top, moved.bottom - plain.bottom) == (shift, shift)
    assert (moved.left, moved.right) == (plain.left, plain.right)


@pytest.mark.parametrize("margin", [0, 10, 40, 100])
def test_a_margin_is_added_below(margin: int) -> None:
    wider, plain = place(extra_margin=margin).box, place().box

    assert wider.bottom - plain.bottom == margin - 10
    assert (wider.top, wider.left, wider.right) == (plain.top, plain.left, plain.right)


@pytest.mark.parametrize(
    "face", [Box(-90, 100, 110, 300), Box(1180, 100, 1380, 300), Box(400, 540, 600, 740)]
)
def test_a_face_that_is_cut_by_the_edge_has_a_place_inside_the_picture(face: Box) -> None:
    box = place(face).box

    assert 0 <= box.left < box.right <= 1280
    assert 0 <= box.top < box.bottom <= 720


@pytest.mark.parametrize(
    "face", [Box(400, 700, 600, 900), Box(-300, 100, -100, 300), Box(400, 100, 410, 110)]
)
def test_a_mouth_outside_the_picture_or_too_small_to_be_seen_has_no_place(face: Box) -> None:
    assert MouthMask().fit(face, 1280, 720, Params()) is None


@given(
    left=st.integers(-200, 1400),
    top=st.integers(-200, 800),
    width=st.integers(1, 700),
    shift=st.integers(-50, 50),
    margin=st.integers(0, 100),
)
def test_every_place_is_even_and_inside_the_picture(
    left: int, top: int, width: int, shift: int, margin: int
) -> None:
    face = Box(left, top, left + width, top + width)

    mouth = MouthMask().fit(face, 1280, 720, Params(bbox_shift=shift, extra_margin=margin))

    if mouth is not None:
        box = mouth.box
        assert not any(edge % 2 for edge in (box.left, box.top, box.right, box.bottom))
        assert 0 <= box.left < box.right <= 1280
        assert 0 <= box.top < box.bottom <= 720
        assert mouth.mask.shape == (box.height, box.width)


def test_a_face_that_keeps_its_size_keeps_one_mask_in_memory() -> None:
    places = [
        MouthMask().fit(Box(left, 100, left + 200, 300), 1280, 720, Params())
        for left in range(100, 800, 10)
    ]

    assert len({id(place.mask_png) for place in places if place}) == 1
