"""Finding faces: each frame of a face, no frame of anything else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handler.job import Params
from inference.batching import Batch
from inference.faces.haar import HaarTracker
from inference.frame import Box, Frame
from tests.clips import reader, run_ffmpeg

ASSETS = Path(__file__).parents[3] / "assets"
FPS = Fraction(25)
#: Where the face of the portrait is, give or take.
EYES_AND_MOUTH = Box(180, 80, 255, 150)


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    """Return the luma of the sample portrait, 512x512."""
    return np.asarray(cv2.imread(f"{ASSETS}/portrait.jpg", cv2.IMREAD_GRAYSCALE), np.uint8)


def track(frames: Iterable[Frame], fps: Fraction = FPS) -> list[Box | None]:
    """Return the boxes of a film."""
    return list(HaarTracker().track(frames, fps, Params(), Batch(1)))


def grey(luma: NDArray[np.uint8]) -> Frame:
    """Return a frame without colour."""
    height, width = luma.shape
    colour = np.full(width * height // 2, 128, np.uint8)
    return Frame(np.concatenate([luma.ravel(), colour]), width, height)


def scene(*portraits: tuple[NDArray[np.uint8], int, int, int]) -> Frame:
    """Hang portraits on a grey wall of 1280x600: each with its left, top and side."""
    wall = np.full((600, 1280), 110, np.uint8)
    for luma, left, top, side in portraits:
        wall[top : top + side, left : left + side] = cv2.resize(luma, (side, side))
    return grey(wall)


def is_around(box: Box | None, left: int, top: int, side: int) -> bool:
    """Tell whether a box holds the face of a portrait that hangs there."""
    if box is None:
        return False
    scale = side / 512
    return (
        box.left < left + EYES_AND_MOUTH.left * scale
        and box.right > left + EYES_AND_MOUTH.right * scale
        and box.top < top + EYES_AND_MOUTH.top * scale
        and box.bottom > top + EYES_AND_MOUTH.bottom * scale
        and box.width < 0.35 * side
    )


# -- faces -----------------------------------------------------------------------------------------


def test_the_sample_face_is_found_in_each_frame(face: Path) -> None:
    film = reader(face)

    boxes = track(film.forward(), film.fps)

    assert len(boxes) == 100
    assert all(is_around(box, 0, 0, 512) for box in boxes)


def test_the_box_follows_the_sample_face_without_a_jerk(face: Path) -> None:
    film = reader(face)

    boxes = track(film.forward(), film.fps)

    edges = np.array([(box.left, box.top, box.right, box.bottom) for box in boxes if box])
    assert np.abs(np.diff(edges, axis=0)).max() <= 3


@pytest.mark.parametrize("side", [128, 240, 720, 1440])
def test_a_face_is_found_at_any_resolution(portrait: NDArray[np.uint8], side: int) -> None:
    picture = grey(np.asarray(cv2.resize(portrait, (side, side)), np.uint8))

    boxes = track([picture] * 5)

    assert all(is_around(box, 0, 0, side) for box in boxes)


def test_a_still_image_has_a_face_too(portrait: NDArray[np.uint8]) -> None:
    (box,) = track([grey(portrait)])

    assert is_around(box, 0, 0, 512)


def test_the_face_may_be_anywhere(portrait: NDArray[np.uint8]) -> None:
    for left, top in ((0, 0), (768, 0), (0, 88), (768, 88)):
        boxes = track([scene((portrait, left, top, 512))] * 5)

        assert all(is_around(box, left, top, 512) for box in boxes)


def test_of_two_faces_the_larger_is_followed(portrait: NDArray[np.uint8]) -> None:
    frames = [scene((portrait, 0, 80, 500), (portrait, 640, 0, 600))] * 20

    boxes = track(frames)

    assert all(is_around(box, 640, 0, 600) for box in boxes)


def test_a_larger_face_that_comes_later_does_not_take_over(portrait: NDArray[np.uint8]) -> None:
    alone = scene((portrait, 0, 80, 500))
    joined = scene((portrait, 0, 80, 500), (portrait, 640, 0, 600))

    boxes = track([alone] * 15 + [joined] * 15)

    assert all(is_around(box, 0, 80, 500) for box in boxes)


def test_a_face_that_jumps_is_still_preferred_to_a_larger_one(portrait: NDArray[np.uint8]) -> None:
    alone = scene((portrait, 0, 80, 500))
    joined = scene((portrait, 130, 80, 500), (portrait, 660, 0, 600))

    boxes = track([alone] * 15 + [joined] * 15)

    assert all(is_around(box, 130, 80, 500) for box in boxes[20:])


def test_a_face_that_walks_is_followed(portrait: NDArray[np.uint8]) -> None:
    frames = [scene((portrait, 8 * step, 80, 500)) for step in range(60)]

    boxes = track(frames)

    found = [is_around(box, 8 * step, 80, 500) for step, box in enumerate(boxes)]
    assert all(found[5:-5])
    assert None not in boxes


def test_a_face_that_leaves_is_gone_and_found_again(portrait: NDArray[np.uint8]) -> None:
    there, away = scene((portrait, 100, 80, 500)), scene()

    boxes = track([there] * 25 + [away] * 50 + [there] * 25)

    assert all(is_around(box, 100, 80, 500) for box in boxes[:20] + boxes[80:])
    assert set(boxes[30:70]) == {None}


def test_a_cut_to_another_place_is_followed_without_sliding(portrait: NDArray[np.uint8]) -> None:
    before, after = scene((portrait, 0, 80, 500)), scene((portrait, 760, 80, 500))

    boxes = track([before] * 25 + [after] * 25)

    assert all(is_around(box, 0, 80, 500) for box in boxes[:22])
    assert all(is_around(box, 760, 80, 500) for box in boxes[28:])
    assert all(
        box is None or is_around(box, 0, 80, 500) or is_around(box, 760, 80, 500) for box in boxes
    )


def test_looking_at_a_film_holds_no_frame_back(portrait: NDArray[np.uint8]) -> None:
    given = []

    def frames() -> Iterator[Frame]:
        for number in range(10):
            given.append(number)
            yield grey(portrait)

    boxes = track(frames())

    assert (len(given), len(boxes)) == (10, 10)


def test_a_film_without_frames_has_no_boxes() -> None:
    assert track([]) == []


# -- anything else ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        "testsrc2=size={size}",
        "mandelbrot=size={size}",
        "smptebars=size={size}",
        "gradients=size={size}:seed=1",
        "life=size={size}:mold=10:ratio=0.1:seed=1",
        "cellauto=size={size}:seed=1",
        "color=gray:size={size},noise=alls=100:allf=t:all_seed=1,gblur=4,eq=contrast=8",
    ],
    ids=lambda pattern: pattern.partition("=")[0],
)
def test_there_is_no_face_in_a_test_picture(tmp_path: Path, pattern: str) -> None:
    path = tmp_path / "film.mp4"
    source = f"{pattern.format(size='320x240')},fps=5"
    encoder = ("-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast")
    run_ffmpeg("-f", "lavfi", "-i", source, "-frames:v", "8", *encoder, f"{path}")
    film = reader(path)

    boxes = track(film.forward(), film.fps)

    assert boxes == [None] * 8


def test_there_is_no_face_in_the_dark_or_in_the_light() -> None:
    frames = [grey(np.full((240, 320), level, np.uint8)) for level in (0, 16, 128, 255)] * 5

    boxes = track(frames)

    assert set(boxes) == {None}


def test_pictures_of_extreme_shapes_do_not_blind_a_worker_to_later_faces(face: Path) -> None:
    tracker, film = HaarTracker(), reader(face)

    for width, height in ((32, 16_384), (16_384, 32)):
        grey = np.full(Frame.size_bytes(width, height), 128, np.uint8)
        tracker.track([Frame(grey, width, height)], FPS, Params(), Batch(1))
    boxes = tracker.track(film.forward(0, 5), film.fps, Params(), Batch(1))

    assert None not in boxes
