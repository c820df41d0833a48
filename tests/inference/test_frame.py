"""Frames and boxes: whole chroma samples, views instead of copies, and parts in colour."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.frame import Box, Frame
from inference.matrix import Bgr, Matrix, bgr_of

EDGES = st.integers(-300, 600)
EVEN = st.integers(1, 200).map(lambda half: 2 * half)


def blank(width: int = 8, height: int = 6) -> Frame:
    """Return a frame whose bytes all differ."""
    return Frame(np.arange(Frame.size_bytes(width, height), dtype=np.uint8), width, height)


def test_a_frame_is_its_luma_and_two_quarters() -> None:
    luma, blue, red = blank().planes

    assert (luma.shape, blue.shape, red.shape) == ((6, 8), (3, 4), (3, 4))
    assert [*luma.flat, *blue.flat, *red.flat] == list(range(72))


def test_what_is_painted_on_a_plane_is_in_the_frame() -> None:
    frame = blank()

    frame.planes.u[:] = 7

    assert set(frame.buffer[48:60]) == {7}
    assert 7 not in frame.buffer[60:]


def test_a_part_of_a_frame_shows_the_same_place_on_each_plane() -> None:
    frame = blank()

    luma, blue, red = frame.crop(Box(2, 2, 6, 4))

    assert np.array_equal(luma, frame.planes.y[2:4, 2:6])
    assert np.array_equal(blue, frame.planes.u[1:2, 1:3])
    assert np.array_equal(red, frame.planes.v[1:2, 1:3])
    assert np.shares_memory(luma, frame.buffer)


def test_a_copy_is_a_frame_of_its_own() -> None:
    frame = blank()
    twin = frame.copy()

    twin.planes.y[:] = 0

    assert frame.buffer[1] == 1
    assert (twin.width, twin.height) == (8, 6)


@given(EDGES, EDGES, EDGES, EDGES, EVEN, EVEN)
def test_a_clipped_box_is_even_inside_the_picture_and_loses_nothing_there(
    left: int, top: int, right: int, bottom: int, width: int, height: int
) -> None:
    box = Box(left, top, right, bottom)

    clipped = box.clipped(width, height)

    assert not any(edge % 2 for edge in (clipped.left, clipped.top, clipped.right, clipped.bottom))
    assert min(clipped.left, clipped.top) >= 0
    assert clipped.right <= width
    assert clipped.bottom <= height
    assert clipped.left <= max(0, left)
    assert clipped.top <= max(0, top)
    assert clipped.right >= min(width, right)
    assert clipped.bottom >= min(height, bottom)


def test_a_box_inside_the_picture_grows_by_no_more_than_a_pixel_a_side() -> None:
    assert Box(3, 5, 11, 13).clipped(100, 100) == Box(2, 4, 12, 14)
    assert Box(2, 4, 12, 14).clipped(100, 100) == Box(2, 4, 12, 14)


def noise(width: int = 16, height: int = 12, matrix: Matrix = Matrix.BT601) -> Frame:
    """Return a frame of which no two parts look alike; nothing in it is black."""
    pixels = np.random.default_rng(5).integers(60, 200, Frame.size_bytes(width, height), np.uint8)
    return Frame(pixels, width, height, matrix)


def cut_out(picture: Bgr, box: Box) -> Bgr:
    """Return a part of a picture that lies on black."""
    margin = 60
    wide = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)))
    return wide[box.top + margin : box.bottom + margin, box.left + margin : box.right + margin]


@pytest.mark.parametrize("matrix", [Matrix.BT601, Matrix.BT709])
def test_a_frame_is_shown_in_the_colours_of_its_own_standard(matrix: Matrix) -> None:
    frame = noise(matrix=matrix)

    picture = frame.bgr()

    assert picture.shape == (12, 16, 3)
    assert np.array_equal(picture, bgr_of(*frame.planes, matrix))
    assert np.array_equal(frame.copy().bgr(), picture)


@given(st.integers(-30, 30), st.integers(-30, 30), st.integers(1, 30), st.integers(1, 30))
def test_any_part_of_a_frame_is_what_the_whole_shows_there_and_black_beyond_it(
    left: int, top: int, width: int, height: int
) -> None:
    frame, box = noise(), Box(left, top, left + width, top + height)

    part = frame.bgr(box)

    assert np.array_equal(part, cut_out(frame.bgr(), box))


def test_a_part_may_begin_and_end_between_two_chroma_samples() -> None:
    frame = noise()

    part = frame.bgr(Box(3, 5, 6, 8))

    assert part.shape == (3, 3, 3)
    assert np.array_equal(part, frame.bgr()[5:8, 3:6])


def test_what_is_drawn_on_a_part_is_not_in_the_frame() -> None:
    frame = noise()
    before = frame.buffer.copy()

    frame.bgr(Box(2, 2, 8, 8))[:] = 0

    assert np.array_equal(frame.buffer, before)
