"""Pasting: exact where it blends, and not a bit changed where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.compositing import blend, paste
from inference.frame import Box, Frame, Planes

BOX = Box(10, 8, 42, 40)


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    """Return pixels of any values."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def picture(seed: int = 1, width: int = 64, height: int = 48) -> Frame:
    """Return a frame of noise."""
    return Frame(noise(seed, Frame.size_bytes(width, height)), width, height)


def face(seed: int = 2) -> Planes:
    """Return what is pasted, of the box's size."""
    return Planes(noise(seed, 32, 32), noise(seed + 1, 16, 16), noise(seed + 2, 16, 16))


def test_a_blend_is_the_exact_mean_rounded_to_nearest_for_all_values() -> None:
    below, above = (axis.astype(np.uint8) for axis in np.mgrid[0:256, 0:256])
    wrong = []

    for mask in range(256):
        mixed = blend(below, above, np.full_like(below, mask))
        weighted = below.astype(int) * (255 - mask) + above.astype(int) * mask
        # floor(weighted / 255 + 1/2), in integers.
        wrong += [mask] * int((mixed != (2 * weighted + 255) // 510).sum())

    assert not wrong


def test_a_blend_between_two_values_stays_between_them() -> None:
    below, above, mask = noise(1, 500, 500), noise(2, 500, 500), noise(3, 500, 500)

    mixed = blend(below, above, mask)

    assert (mixed >= np.minimum(below, above)).all()
    assert (mixed <= np.maximum(below, above)).all()


def test_where_the_mask_is_full_the_face_is_seen_and_where_it_is_empty_the_frame() -> None:
    below, above = noise(1, 32, 32), noise(2, 32, 32)

    assert np.array_equal(blend(below, above, np.full((32, 32), 255, np.uint8)), above)
    assert np.array_equal(blend(below, above, np.zeros((32, 32), np.uint8)), below)


def test_a_frame_is_not_changed_by_pasting_into_it() -> None:
    frame = picture()
    before = frame.buffer.copy()

    result = paste(frame, face(), BOX, noise(5, 32, 32))

    assert np.array_equal(frame.buffer, before)
    assert not np.shares_memory(result.buffer, frame.buffer)


def test_no_pixel_outside_the_box_changes() -> None:
    frame = picture()

    result = paste(frame, face(), BOX, np.full((32, 32), 255, np.uint8))

    outside = frame.copy()
    for plane, pasted in zip(outside.crop(BOX), result.crop(BOX), strict=True):
        plane[:] = pasted
    assert np.array_equal(outside.buffer, result.buffer)


def test_no_pixel_changes_where_the_mask_is_empty() -> None:
    frame = picture()
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = noise(5, 16, 32)

    result = paste(frame, face(), BOX, mask)

    assert np.array_equal(result.crop(BOX).y[16:], frame.crop(BOX).y[16:])
    assert np.array_equal(result.crop(BOX).u[8:], frame.crop(BOX).u[8:])
    assert np.array_equal(result.crop(BOX).v[8:], frame.crop(BOX).v[8:])


def test_under_a_full_mask_every_plane_is_the_faces() -> None:
    pasted = face()

    result = paste(picture(), pasted, BOX, np.full((32, 32), 255, np.uint8))

    for found, due in zip(result.crop(BOX), pasted, strict=True):
        assert np.array_equal(found, due)


def test_luma_and_colour_are_blended_by_the_same_mask() -> None:
    frame = picture()
    grey = Planes(*(np.full_like(plane, 100) for plane in frame.crop(BOX)))
    for plane in frame.planes:
        plane[:] = 200
    mask = np.kron(noise(5, 16, 16), np.ones((2, 2), np.uint8))

    result = paste(frame, grey, BOX, mask)

    luma, blue, red = result.crop(BOX)
    assert np.array_equal(luma[::2, ::2], blue)
    assert np.array_equal(blue, red)


@pytest.mark.parametrize("box", [Box(0, 0, 32, 32), Box(32, 16, 64, 48)])
def test_a_face_may_touch_the_edge_of_the_picture(box: Box) -> None:
    pasted = face()

    result = paste(picture(), pasted, box, np.full((32, 32), 255, np.uint8))

    assert np.array_equal(result.crop(box).y, pasted.y)


def test_colour_is_blended_by_the_mean_of_the_mask_above_it() -> None:
    frame = Frame(np.zeros(Frame.size_bytes(32, 32), np.uint8), 32, 32)
    white = Planes(*(np.full((side, side), 255, np.uint8) for side in (32, 16, 16)))
    mask = np.tile(np.array([[0, 80], [120, 200]], np.uint8), (16, 16))

    result = paste(frame, white, Box(0, 0, 32, 32), mask)

    assert set(result.planes.u.flat) == set(result.planes.v.flat) == {100}
