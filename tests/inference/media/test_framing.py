"""Framing: the output's size, and what of the source is seen in it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import InvalidJob, WorkerError
from handler.ports import VideoInfo
from inference.frame import Frame
from inference.media.framing import aspect_warning, frame_picture
from inference.media.limits import Limits
from tests.clips import DARK, LIGHT, film, job, numbers_of, reader


def video(width: int, height: int) -> VideoInfo:
    """Describe a film of a size."""
    return VideoInfo(codec="h264", width=width, height=height, fps=Fraction(25), duration=1)


def canvas(width: int, height: int, **wishes: Any) -> tuple[int, int]:
    """Return the output's size for a source's."""
    return frame_picture(video(width, height), job(**wishes)).canvas


def fitted(aspect: str, fit: str) -> dict[str, Any]:
    """Wish for an aspect ratio."""
    return {"aspect_ratio": aspect, "params": {"fit": fit}}


# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (64, 48), (512, 512)])
def test_a_picture_is_kept_as_it_is_if_nobody_wishes_otherwise(size: tuple[int, int]) -> None:
    assert canvas(*size) == size


@pytest.mark.parametrize(("size", "even"), [((65, 49), (64, 48)), ((853, 480), (852, 480))])
def test_an_odd_side_loses_one_pixel(size: tuple[int, int], even: tuple[int, int]) -> None:
    assert canvas(*size) == even


@pytest.mark.parametrize(
    ("size", "resolution", "shrunk"),
    [
        ((1920, 1080), "720p", (1280, 720)),
        ((1080, 1920), "720p", (720, 1280)),
        ((3840, 2160), "512x512", (512, 288)),
        ((2160, 3840), "512x512", (288, 512)),
        ((1000, 1000), "512x512", (512, 512)),
        ((1920, 1080), "1280x512", (910, 512)),
        # Never enlarged.
        ((640, 480), "720p", (640, 480)),
        ((320, 240), "512x512", (320, 240)),
    ],
)
def test_a_resolution_is_a_cap(
    size: tuple[int, int], resolution: str, shrunk: tuple[int, int]
) -> None:
    assert canvas(*size, resolution=resolution) == shrunk


@pytest.mark.parametrize(
    ("size", "aspect", "cropped", "padded"),
    [
        ((1920, 1080), "9:16", (608, 1080), (1920, 3412)),
        ((1080, 1920), "9:16", (1080, 1920), (1080, 1920)),
        ((1080, 1080), "16:9", (1080, 608), (1920, 1080)),
        ((640, 480), "1:1", (480, 480), (640, 640)),
    ],
)
def test_another_aspect_ratio_is_cut_out_or_padded_to(
    size: tuple[int, int], aspect: str, cropped: tuple[int, int], padded: tuple[int, int]
) -> None:
    assert canvas(*size, **fitted(aspect, "crop")) == cropped
    assert canvas(*size, **fitted(aspect, "pad")) == padded
    assert canvas(*size, **fitted(aspect, "keep")) == size


#: With smaller ones a wish may leave too little for a face, which is refused.
SIDES = st.integers(128, 1400)
ASPECTS = st.sampled_from(["9:16", "16:9", "1:1", "4:3", "3:4", "21:9", "4:5"])
RESOLUTIONS = st.sampled_from([None, "720p", "512x512", "99p", "1080x1920"])


@given(SIDES, SIDES, ASPECTS, st.sampled_from(["keep", "pad", "crop"]), RESOLUTIONS)
def test_no_wish_enlarges_a_picture_or_gives_it_an_odd_side(
    width: int, height: int, aspect: str, fit: str, resolution: str | None
) -> None:
    framing = frame_picture(video(width, height), job(**fitted(aspect, fit), resolution=resolution))

    sides = (*framing.crop, *framing.scale, *framing.canvas)
    assert not any(side % 2 for side in sides)
    assert min(sides) >= 2
    for cropped, source in zip(framing.crop, (width, height), strict=True):
        assert cropped <= source
    for scaled, cropped, whole in zip(framing.scale, framing.crop, framing.canvas, strict=True):
        assert scaled <= min(cropped, whole)


@given(SIDES, SIDES, ASPECTS, st.sampled_from(["pad", "crop"]))
def test_the_output_has_the_aspect_ratio_asked_for_to_within_a_chroma_sample(
    width: int, height: int, aspect: str, fit: str
) -> None:
    across, down = canvas(width, height, **fitted(aspect, fit))

    wide, high = (int(part) for part in aspect.split(":"))
    assert abs(across * high - down * wide) <= 3 * max(wide, high)


@given(SIDES, SIDES, RESOLUTIONS)
def test_a_shrunk_picture_is_not_distorted(width: int, height: int, resolution: str | None) -> None:
    framing = frame_picture(video(width, height), job(resolution=resolution))

    across = Fraction(framing.scale[0], framing.crop[0])
    down = Fraction(framing.scale[1], framing.crop[1])
    assert abs(across - down) <= Fraction(3, min(framing.crop))


@pytest.mark.parametrize("aspect", ["1:9999", "9999:1", "1:50"])
def test_no_wish_makes_a_picture_larger_than_a_source_may_be(aspect: str) -> None:
    # Else a few bytes of a request would fill the worker's memory.
    try:
        across, down = canvas(3840, 2160, **fitted(aspect, "pad"))
    except WorkerError:
        return

    assert across * down <= Limits().max_pixels


# -- what the caller is told -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "wishes", "warned"),
    [
        ((1920, 1080), {"aspect_ratio": "9:16"}, True),
        ((1080, 1920), {"aspect_ratio": "9:16"}, False),
        # 270x480 and its neighbours pass for 9:16.
        ((272, 480), {"aspect_ratio": "9:16"}, False),
        ((1920, 1080), fitted("9:16", "crop"), False),
        ((1920, 1080), fitted("9:16", "pad"), False),
        ((1920, 1080), {}, False),
    ],
)
def test_a_picture_that_was_kept_against_a_wish_is_mentioned(
    size: tuple[int, int], wishes: dict[str, Any], *, warned: bool
) -> None:
    warnings = aspect_warning(video(*size), job(**wishes))

    assert bool(warnings) == warned
    assert all("9:16" in warning and "1920x1080" in warning for warning in warnings)


# -- what is seen ----------------------------------------------------------------------------------


def shown(path: Path, **wishes: Any) -> Frame:
    """Return the first frame of a film as a job wishes it."""
    return next(iter(reader(path, **wishes).forward()))


@pytest.fixture(scope="module")
def square_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Film a picture of 4 by 3 blocks, each 40 pixels wide, of which the inner two are light."""
    path = tmp_path_factory.mktemp("framing") / "film.mp4"
    return film(path, [0b0000_0110_0000] * 2, size=(160, 120))


def test_cropping_keeps_the_middle(square_blocks: Path) -> None:
    picture = shown(square_blocks, **fitted("2:1", "crop"))

    assert (picture.width, picture.height) == (160, 80)
    middle = picture.planes.y[25:55]
    assert middle[:, 45:115].min() > LIGHT - 5
    assert middle[:, :35].max() < DARK + 5
    assert picture.planes.y[:15].max() < DARK + 5


def test_padding_adds_equal_black_bars_and_keeps_the_whole(square_blocks: Path) -> None:
    picture = shown(square_blocks, **fitted("2:1", "pad"))

    luma, blue, red = picture.planes
    assert (picture.width, picture.height) == (240, 120)
    for bar in (luma[:, :40], luma[:, -40:]):
        assert (bar.min(), bar.max()) == (16, 16)
    assert {*blue[:, :20].flat, *red[:, -20:].flat} == {128}
    assert luma[45:75, 85:155].min() > LIGHT - 5
    assert luma[:, 45:75].max() < DARK + 5


def test_shrinking_keeps_every_block_in_its_place(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 12, size=(320, 240))

    frames = list(reader(path, resolution="80x80").forward())

    assert (frames[0].width, frames[0].height) == (80, 60)
    assert numbers_of(frames) == list(range(12))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_phones_film_is_cropped_as_it_is_seen(tmp_path: Path, orientation: int) -> None:
    path = film(tmp_path / "film.mp4", [1, 1], size=(160, 120), orientation=orientation)

    picture = shown(path, **fitted("1:1", "crop"))

    # The light block at the upper left is cut in half.
    assert (picture.width, picture.height) == (120, 120)
    assert picture.planes.y[5:35, 3:17].min() > LIGHT - 5
    assert picture.planes.y[5:35, 23:].max() < DARK + 5


@pytest.mark.parametrize(
    ("aspect", "fit"),
    [
        ("1:9999", "pad"),
        ("9999:1", "pad"),
        ("1:9999", "crop"),
        ("1:1030", "crop"),
        ("500:1", "crop"),
    ],
)
def test_a_shape_that_leaves_no_room_for_a_face_is_refused_by_its_field(
    aspect: str, fit: str
) -> None:
    with pytest.raises(InvalidJob) as caught:
        canvas(512, 512, **fitted(aspect, fit))

    assert caught.value.details["field"] == "aspect_ratio"
