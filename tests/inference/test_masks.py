"""Masks: the reference's to the pixel, soft, below the face's middle, and inside the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from handler.job import ParsingMode
from inference.compositing import blend
from inference.frame import Box, Plane
from inference.masks import (
    MOUTH,
    NECK,
    NOSE,
    SKIN,
    blend_mask,
    class_mask,
    face_mask,
    square_around,
)

#: Made by the reference implementation. Equal to the bit with the same OpenCV and Pillow;
#: other versions may differ by up to 2 levels on up to 0.1 % of the pixels.
GOLDEN = Path(__file__).parents[1] / "golden"
LARGEST_DIFFERENCE = 2
LARGEST_SHARE = 0.001
META = json.loads((GOLDEN / "meta.json").read_text(encoding="utf-8"))
BLENDS = META["blends"]

#: Everything may be replaced.
ALL = np.full((512, 512), 255, np.uint8)
WIDTH, HEIGHT = 640, 360


def golden(name: str) -> Plane:
    """Return a golden picture, BGR or grey, as it is stored."""
    return np.asarray(cv2.imread(str(GOLDEN / name), cv2.IMREAD_UNCHANGED), np.uint8)


def allowed_by(blending: dict[str, Any]) -> Plane:
    """Return what the golden map of classes allows with one of the golden configurations."""
    return class_mask(
        golden("classes.png"),
        ParsingMode(blending["mode"]),
        blending.get("left_cheek_width", 90),
        blending.get("right_cheek_width", 90),
    )


def put_in(frame: Plane, face: Plane, at: Box, allowed: Plane) -> Plane:
    """Return a BGR frame with a face in it, as large as its box."""
    covered, result = frame.copy(), frame.copy()
    covered[at.top : at.bottom, at.left : at.right] = face
    changed = face_mask(allowed, at, frame.shape[1], frame.shape[0])
    assert changed is not None
    box, mask = changed
    part = slice(box.top, box.bottom), slice(box.left, box.right)
    result[part] = blend(frame[part], covered[part], mask[..., np.newaxis])
    return result


def a_map(**regions: tuple[int, int, int, int]) -> Plane:
    """Return a map of background with rectangles: left, top, right, bottom."""
    numbers = {"skin": SKIN, "nose": NOSE, "neck": NECK, "lip": MOUTH[1]}
    classes = np.zeros((512, 512), np.uint8)
    for name, (left, top, right, bottom) in regions.items():
        classes[top:bottom, left:right] = numbers[name]
    return classes


def jaw(classes: Plane, left: int = 90, right: int = 90) -> Plane:
    """Return where the jaw mode lets a map be replaced."""
    return class_mask(classes, ParsingMode.JAW, left, right)


def name_of(blending: dict[str, Any]) -> str:
    return Path(blending["output"]).stem


@pytest.mark.parametrize("blending", BLENDS, ids=name_of)
def test_a_map_of_classes_allows_what_the_reference_allows(blending: dict[str, Any]) -> None:
    assert np.array_equal(allowed_by(blending), golden(blending["mask"]))


@pytest.mark.parametrize("blending", BLENDS, ids=name_of)
def test_a_face_is_blended_as_by_the_reference(blending: dict[str, Any]) -> None:
    result = put_in(
        golden("frame.png"), golden("face.png"), Box(*META["box"]), allowed_by(blending)
    )

    assert_alike(result, golden(blending["output"]))


def test_a_face_in_the_corner_is_blended_as_by_the_reference() -> None:
    edge = META["edge"]

    result = put_in(golden("frame.png"), golden(edge["face"]), Box(*edge["box"]), allowed_by(edge))

    assert_alike(result, golden(edge["output"]))


def assert_alike(result: Plane, due: Plane) -> None:
    apart = cv2.absdiff(result, due).max(axis=2)
    assert apart.max() <= LARGEST_DIFFERENCE
    assert np.mean(apart > 0) <= LARGEST_SHARE


def test_only_the_neck_mode_replaces_the_neck() -> None:
    classes = a_map(skin=(150, 150, 350, 350), neck=(200, 380, 300, 480))

    replaced = {mode: class_mask(classes, mode, 90, 90)[classes == NECK] for mode in ParsingMode}

    assert replaced[ParsingMode.NECK].all()
    assert not replaced[ParsingMode.RAW].any()
    assert not replaced[ParsingMode.JAW].any()


def test_the_jaw_mode_never_replaces_the_nose_and_always_the_lips() -> None:
    classes = a_map(skin=(100, 100, 400, 400), nose=(240, 200, 270, 260), lip=(220, 300, 290, 320))

    replaced = jaw(classes)

    assert not replaced[classes == NOSE].any()
    assert replaced[classes == MOUTH[1]].all()


def test_between_the_cheeks_skin_spreads_upwards_and_a_little_down() -> None:
    replaced = jaw(a_map(skin=(256, 300, 257, 301))) > 0

    rows, columns = np.nonzero(replaced)
    assert (rows.min(), rows.max()) == (300 - 16, 300 + 6)
    assert (columns.min(), columns.max()) == (256 - 10, 256 + 10)
    # A block twelve rows high, then a triangle that ends in a single pixel.
    assert list(replaced[284:307].sum(axis=1)) == [21] * 12 + list(range(21, 0, -2))


def test_on_the_cheeks_skin_is_drawn_back_from_its_outline() -> None:
    classes = a_map(skin=(60, 200, 452, 400))

    row = np.flatnonzero(jaw(classes)[300])

    # 10 pixels of spreading, less twice the ellipse's 17.
    assert (row[0], row[-1]) == (60 - 10 + 34, 451 + 10 - 34)


@pytest.mark.parametrize(("left", "right"), [(90, 90), (60, 110), (20, 160)])
def test_the_cheeks_begin_as_far_from_the_middle_as_asked(left: int, right: int) -> None:
    classes = a_map(skin=(0, 300, 512, 340))

    # The cheeks are drawn back by two rows, too; what is between them is not.
    highest = np.flatnonzero(jaw(classes, left, right)[300 - 16])

    assert (highest[0], highest[-1]) == (256 - left + 1, 256 + right - 1)


#: Of a tracker's size and shape: any place, partly or wholly outside the picture too.
faces = st.builds(
    lambda left, top, width, height: Box(left, top, left + width, top + height),
    left=st.integers(-250, WIDTH),
    top=st.integers(-250, HEIGHT),
    width=st.integers(8, 250),
    height=st.integers(8, 250),
)


@given(face=faces)
def test_the_parsed_square_has_the_face_in_its_middle(face: Box) -> None:
    square = square_around(face)

    assert square.width == square.height
    assert square.width == pytest.approx(1.5 * max(face.width, face.height), abs=3)
    assert square.left + square.right == pytest.approx(face.left + face.right, abs=1)
    assert square.top + square.bottom == pytest.approx(face.top + face.bottom, abs=1)


@given(face=faces)
def test_blurring_the_face_alone_gives_the_same_as_blurring_all_around_it(face: Box) -> None:
    allowed = allowed_by({"mode": "jaw"})

    mask = blend_mask(allowed, face)

    assert np.array_equal(mask, blurred_square(allowed, face))


def blurred_square(allowed: Plane, face: Box) -> Plane:
    """Return the mask by the letter of the reference's rule: on the square, then cut out."""
    square = square_around(face)
    side = square.width
    soft = Image.fromarray(allowed).resize((side, side), Image.Resampling.BICUBIC)
    x, y = face.left - square.left, face.top - square.top
    place = slice(y, y + face.height), slice(x, x + face.width)
    kept = np.zeros((side, side), np.uint8)
    kept[place] = np.asarray(soft)[place]
    kept[: side // 2] = 0
    kernel = int((0.05 * side) // 2 * 2) + 1
    return np.asarray(cv2.GaussianBlur(kept, (kernel, kernel), 0)[place], np.uint8)


@pytest.mark.parametrize(("width", "kernel"), [(267, 21), (667, 51)])
def test_a_face_fades_in_around_its_middle_over_a_twentieth_of_the_square(
    width: int, kernel: int
) -> None:
    mask = blend_mask(ALL, Box(0, 0, width, width))

    column = mask[:, width // 2]
    fading = np.flatnonzero((column > 0) & (column < 255))
    fading = fading[fading < width * 0.75]
    # The far ends of a Gaussian kernel are too light to be seen in 8 bits.
    assert 0.75 * kernel < np.ptp(fading) <= kernel
    assert fading.mean() == pytest.approx(width / 2, abs=1)


def test_a_mask_has_no_hard_edge_within_the_face() -> None:
    mask = blend_mask(ALL, Box(0, 0, 400, 400)).astype(int)

    assert np.abs(np.diff(mask, axis=0)).max() < 40
    assert np.abs(np.diff(mask, axis=1)).max() < 40


@given(face=faces)
def test_a_mask_is_the_faces_wherever_the_picture_shows_it_and_zero_elsewhere(face: Box) -> None:
    on_face = np.zeros((HEIGHT + 1000, WIDTH + 1000), np.uint8)
    on_face[face.top + 500 : face.bottom + 500, face.left + 500 : face.right + 500] = blend_mask(
        ALL, face
    )

    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    if (changed := face_mask(ALL, face, WIDTH, HEIGHT)) is not None:
        box, mask = changed
        found[box.top : box.bottom, box.left : box.right] = mask

    assert np.array_equal(found, on_face[500 : HEIGHT + 500, 500 : WIDTH + 500])


@given(face=faces)
def test_what_changes_is_even_inside_the_picture_and_no_larger_than_need_be(face: Box) -> None:
    changed = face_mask(ALL, face, WIDTH, HEIGHT)

    if changed is not None:
        box, mask = changed
        assert not any(edge % 2 for edge in (box.left, box.top, box.right, box.bottom))
        assert 0 <= box.left < box.right <= WIDTH
        assert 0 <= box.top < box.bottom <= HEIGHT
        assert mask.shape == (box.height, box.width)
        assert mask.dtype == np.uint8
        assert mask[:2].any()
        assert mask[-2:].any()
        assert mask[:, :2].any()
        assert mask[:, -2:].any()


@pytest.mark.parametrize(
    "face",
    [
        pytest.param(Box(0, 100, 120, 250), id="left"),
        pytest.param(Box(520, 100, 640, 250), id="right"),
        pytest.param(Box(200, 0, 320, 150), id="top"),
        pytest.param(Box(200, 210, 320, 360), id="bottom"),
        pytest.param(Box(0, 0, 640, 360), id="all of it"),
        pytest.param(Box(301, 201, 310, 212), id="small"),
    ],
)
def test_a_face_changes_below_its_middle_wherever_it_is(face: Box) -> None:
    changed = face_mask(ALL, face, WIDTH, HEIGHT)

    assert changed is not None
    box, mask = changed
    assert (box.left, box.right) == (face.left // 2 * 2, -(-face.right // 2) * 2)
    assert box.top == pytest.approx((face.top + face.bottom) / 2, abs=0.05 * face.width + 2)
    assert box.bottom == -(-face.bottom // 2) * 2
    assert mask.max() == 255


@pytest.mark.parametrize(
    ("allowed", "face"),
    [
        pytest.param(np.zeros_like(ALL), Box(200, 100, 320, 250), id="nothing may be replaced"),
        pytest.param(ALL, Box(-200, 100, -10, 250), id="left of the picture"),
        pytest.param(ALL, Box(640, 100, 740, 250), id="right of the picture"),
        pytest.param(ALL, Box(200, -160, 320, -10), id="above the picture"),
        pytest.param(ALL, Box(200, 400, 320, 500), id="below the picture"),
        pytest.param(ALL, Box(200, 300, 320, 460), id="its middle below the picture"),
        pytest.param(ALL, Box(200, 100, 207, 107), id="too small to be seen"),
        pytest.param(ALL, Box(200, 100, 200, 100), id="empty"),
    ],
)
def test_a_face_of_which_nothing_can_be_replaced_has_no_mask(allowed: Plane, face: Box) -> None:
    assert face_mask(allowed, face, WIDTH, HEIGHT) is None
