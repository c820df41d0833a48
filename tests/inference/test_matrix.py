"""Colours: the standards' own numbers, there and back, and what FFmpeg makes of a picture."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from handler.ports import VideoInfo
from inference.matrix import Bgr, Matrix, bgr_of, planes_of
from inference.media.color import color_tags

HEIGHT, WIDTH = 90, 160
#: What FFmpeg's scaler calls these standards.
NAMES = {
    Matrix.BT601: "bt601",
    Matrix.BT709: "bt709",
    Matrix.FCC: "fcc",
    Matrix.SMPTE240M: "smpte240m",
    Matrix.BT2020: "bt2020",
}
#: Have FFmpeg average chroma, round, and repeat chroma samples, as is done here.
DOWN = "area+accurate_rnd+full_chroma_int+full_chroma_inp"
UP = "neighbor+accurate_rnd+full_chroma_int"
BLACK, WHITE, GREY = (0, 0, 0), (255, 255, 255), (128, 128, 128)
RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)


def flat(bgr: Sequence[int], height: int = 2, width: int = 2) -> Bgr:
    """Return a picture of one colour."""
    return np.full((height, width, 3), bgr, np.uint8)


def noise(low: int, high: int, *shape: int) -> NDArray[np.uint8]:
    """Return unlike pixels from a range, which no two ways of averaging treat alike."""
    return np.random.default_rng(1).integers(low, high, shape, np.uint8)


def rescaled(raw: bytes, before: str, after: str, words: str) -> NDArray[np.uint8]:
    """Have FFmpeg convert one picture from a pixel format to another."""
    size = f"-f rawvideo -pix_fmt {before} -s {WIDTH}x{HEIGHT} -i -"
    output = f"-vf scale={words} -f rawvideo -pix_fmt {after} -"
    command = ["ffmpeg", "-v", "error", *size.split(), *output.split()]
    done = subprocess.run(command, input=raw, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8)


def farthest(found: NDArray[np.uint8], due: NDArray[np.uint8]) -> int:
    """Return by how many levels two pictures differ at most."""
    return int(np.abs(found.astype(int) - due).max())


@pytest.mark.parametrize(
    ("matrix", "bgr", "yuv"),
    [
        *[(matrix, BLACK, (16, 128, 128)) for matrix in Matrix],
        *[(matrix, WHITE, (235, 128, 128)) for matrix in Matrix],
        *[(matrix, GREY, (126, 128, 128)) for matrix in Matrix],
        (Matrix.BT601, RED, (81, 90, 240)),
        (Matrix.BT601, GREEN, (145, 54, 34)),
        (Matrix.BT601, BLUE, (41, 240, 110)),
        (Matrix.BT709, RED, (63, 102, 240)),
        (Matrix.BT709, GREEN, (173, 42, 26)),
        (Matrix.BT709, BLUE, (32, 240, 118)),
    ],
)
def test_colours_have_the_numbers_of_the_standard(
    matrix: Matrix, bgr: Sequence[int], yuv: Sequence[int]
) -> None:
    planes = planes_of(flat(bgr), matrix)

    assert [set(plane.flat) for plane in planes] == [{value} for value in yuv]


@pytest.mark.parametrize("matrix", Matrix)
def test_a_colour_comes_back_within_two_levels(matrix: Matrix) -> None:
    shades = (0, 1, 15, 64, 128, 200, 254, 255)
    colours = list(itertools.product(shades, repeat=3))

    back = [bgr_of(*planes_of(flat(bgr), matrix), matrix)[0, 0] for bgr in colours]

    assert farthest(np.array(back), np.array(colours, np.uint8)) <= 2


@pytest.mark.parametrize("matrix", Matrix)
def test_ffmpeg_makes_the_same_planes_of_a_picture(matrix: Matrix) -> None:
    bgr = noise(0, 256, HEIGHT, WIDTH, 3)

    planes = planes_of(bgr, matrix)

    words = f"out_color_matrix={NAMES[matrix]}:out_range=tv:flags={DOWN}"
    due = rescaled(bgr.tobytes(), "bgr24", "yuv420p", words)
    assert farthest(np.concatenate([plane.ravel() for plane in planes]), due) <= 1


@pytest.mark.parametrize("matrix", Matrix)
def test_ffmpeg_shows_planes_in_the_same_colours(matrix: Matrix) -> None:
    # Colours that a screen can show; what lies beyond, FFmpeg's scaler may wrap around.
    y, (u, v) = noise(80, 176, HEIGHT, WIDTH), noise(108, 149, 2, HEIGHT // 2, WIDTH // 2)

    bgr = bgr_of(y, u, v, matrix)

    words = f"in_color_matrix={NAMES[matrix]}:in_range=tv:flags={UP}"
    raw = b"".join(plane.tobytes() for plane in (y, u, v))
    due = rescaled(raw, "yuv420p", "bgr24", words)
    assert farthest(bgr.ravel(), due) <= 1


def test_four_pixels_share_the_mean_of_their_colours() -> None:
    bgr = np.array([[RED, BLUE], [BLUE, RED]], np.uint8)

    _, blue, red = planes_of(bgr, Matrix.BT601)

    assert (blue.shape, red.shape) == ((1, 1), (1, 1))
    assert (blue.item(), red.item()) == (165, 175)


def test_a_colour_beyond_what_a_screen_shows_is_cut_off() -> None:
    whiter, redder = (np.full((2, 2), value, np.uint8) for value in (255, 240))
    neutral = np.full((1, 1), 128, np.uint8)

    assert (bgr_of(whiter, neutral, neutral, Matrix.BT709) == 255).all()
    assert bgr_of(redder, neutral, redder[:1, :1], Matrix.BT709)[0, 0].tolist()[2] == 255


def video(tag: str, height: int) -> VideoInfo:
    """Describe a video by its colours."""
    return VideoInfo(
        codec="h264", width=1920, height=height, fps=None, duration=0, color={"color_space": tag}
    )


@pytest.mark.parametrize(
    "tag", ["bt709", "smpte170m", "bt470bg", "fcc", "smpte240m", "bt2020nc", "bt2020c"]
)
def test_a_tag_that_the_output_may_carry_means_a_matrix(tag: str) -> None:
    kept = color_tags(video(tag, 480), 1920, 480)["colorspace"]

    assert kept == tag
    assert Matrix.of(kept) in Matrix


@pytest.mark.parametrize("tag", ["unknown", "reserved", "gbr", "ycgco", "ictcp", ""])
@pytest.mark.parametrize(("height", "matrix"), [(480, Matrix.BT601), (1080, Matrix.BT709)])
def test_a_picture_of_unknown_colours_is_read_as_players_do(
    tag: str, height: int, matrix: Matrix
) -> None:
    tags = color_tags(video(tag, height), 1920, height)

    assert Matrix.of(tags["colorspace"]) is matrix
