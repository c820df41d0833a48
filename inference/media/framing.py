"""How a source picture becomes the output picture: turned, cut, scaled, padded; never enlarged."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Any

from handler.errors import InvalidJob
from handler.job import Fit, Job
from handler.ports import UPRIGHT, Orientation, VideoInfo
from inference.media.color import assumed_standard, is_rgb
from inference.media.limits import DEFAULT_LIMITS

#: Two aspect ratios that differ by less than this look alike.
ASPECT_TOLERANCE = 0.01
#: Twice the side of 4K: players take no more, and encoders little.
LONGEST_SIDE_PIXELS = 8192
#: With less there is nothing to be seen, and encoders fail.
SHORTEST_SIDE_PIXELS = 8


@dataclass(frozen=True, slots=True)
class Framing:
    """Hold the sizes a picture goes through, each (width, height) and even."""

    crop: tuple[int, int]
    scale: tuple[int, int]
    canvas: tuple[int, int]

    @property
    def width(self) -> int:
        """Pixels across the output."""
        return self.canvas[0]

    @property
    def height(self) -> int:
        """Pixels down the output."""
        return self.canvas[1]


def frame_picture(
    video: VideoInfo, job: Job, max_pixels: int = DEFAULT_LIMITS.max_pixels
) -> Framing:
    """Work out the sizes for a job's ``aspect_ratio``, ``fit`` and ``resolution``.

    However wide the padding, the output has at most ``max_pixels``, and sides that an encoder
    takes. Raises :class:`InvalidJob` if too little of the picture would be left.
    """
    size = (video.width, video.height)
    crop = canvas = size
    if job.aspect_ratio is not None:
        wanted = _aspect(job.aspect_ratio)
        if job.params.fit is Fit.CROP:
            crop = canvas = _largest_inside(size, wanted)
        elif job.params.fit is Fit.PAD:
            canvas = _smallest_around(size, wanted)
    shrink = min(Fraction(1), _cap(canvas, job.resolution), _room(canvas, max_pixels))
    framing = Framing(
        crop=_even(crop),
        scale=_even((crop[0] * shrink, crop[1] * shrink)),
        canvas=_even((canvas[0] * shrink, canvas[1] * shrink)),
    )
    if min(framing.scale) < SHORTEST_SIDE_PIXELS:
        width, height = framing.scale
        raise InvalidJob(
            f"aspect_ratio and resolution leave {width}x{height} of the picture: no face fits.",
            field="aspect_ratio" if job.aspect_ratio else "resolution",
        )
    return framing


def aspect_warning(video: VideoInfo, job: Job) -> tuple[str, ...]:
    """Say so, if the picture is kept although the job names another aspect ratio."""
    if job.aspect_ratio is None or job.params.fit is not Fit.KEEP:
        return ()
    wanted, found = _aspect(job.aspect_ratio), Fraction(video.width, video.height)
    if abs(found / wanted - 1) <= ASPECT_TOLERANCE:
        return ()
    warning = (
        f"aspect_ratio is {job.aspect_ratio}, but the video is {video.width}x{video.height} and was"
        " kept so; set params.fit to 'pad' or 'crop' to change it."
    )
    return (warning,)


def picture_filters(stream: Any, video: VideoInfo, framing: Framing) -> Any:
    """Append to ffmpeg's stream what brings a source picture to the output's."""
    upright = (video.width, video.height)
    if not is_rgb(video):
        # Luma and chroma stay what they are, whatever their matrix; from 7.1 on, ffmpeg's scaler
        # refuses those that it could not convert.
        stream = stream.filter("setparams", colorspace="unknown")
    # A recording may change its size on its way; the filters behind this one could not follow.
    # Where nothing changes and pixels are square, a picture passes here untouched.
    square = upright if video.sample_aspect == 1 else _even(upright)
    stream = stream.filter("scale", *(square if video.orientation[0] else square[::-1]))
    if video.sample_aspect != 1:
        stream = stream.filter("setsar", 1)
    for name, words in _TURNS[video.orientation]:
        stream = stream.filter(name, **words)
    if framing.crop != upright:
        stream = stream.filter("crop", *framing.crop)
    if framing.scale != framing.crop or _needs_conversion(video):
        matrix = {"out_color_matrix": assumed_standard(*framing.canvas)} if is_rgb(video) else {}
        words = {"out_range": "tv", "flags": "bicubic", **matrix}
        stream = stream.filter("scale", *framing.scale, **words).filter("format", "yuv420p")
    if framing.canvas != framing.scale:
        stream = stream.filter("pad", *framing.canvas, "(ow-iw)/2", "(oh-ih)/2")
    return stream


#: Filters that bring a picture upright, by its display matrix.
_TURNS: dict[Orientation, tuple[tuple[str, dict[str, str]], ...]] = {
    UPRIGHT: (),
    (-1, 0, 0, 1): (("hflip", {}),),
    (1, 0, 0, -1): (("vflip", {}),),
    (-1, 0, 0, -1): (("hflip", {}), ("vflip", {})),
    (0, 1, -1, 0): (("transpose", {"dir": "clock"}),),
    (0, -1, 1, 0): (("transpose", {"dir": "cclock"}),),
    (0, 1, 1, 0): (("transpose", {"dir": "cclock_flip"}),),
    (0, -1, -1, 0): (("transpose", {"dir": "clock_flip"}),),
}


def _needs_conversion(video: VideoInfo) -> bool:
    return video.pixel_format != "yuv420p" or video.color.get("color_range") == "pc"


def _aspect(text: str) -> Fraction:
    across, down = text.split(":")
    return Fraction(int(across), int(down))


def _largest_inside(size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    width, height = size
    return max(1, min(width, round(height * aspect))), max(1, min(height, round(width / aspect)))


def _smallest_around(size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    width, height = size
    return max(width, round(height * aspect)), max(height, round(width / aspect))


def _room(size: tuple[int, int], max_pixels: int) -> Fraction:
    """Return by how much a picture must shrink to be one that can be encoded."""
    area = Fraction(sqrt(max_pixels / (size[0] * size[1]))).limit_denominator(10**6)
    return min(area, Fraction(LONGEST_SIDE_PIXELS, max(size)))


def _cap(size: tuple[int, int], resolution: str | None) -> Fraction:
    """Return by how much a picture must shrink for ``720p`` (short side) or ``512x512`` (box)."""
    if resolution is None:
        return Fraction(1)
    if resolution.endswith("p"):
        return Fraction(int(resolution[:-1]), min(size))
    width, height = (int(side) for side in resolution.split("x"))
    return min(Fraction(width, size[0]), Fraction(height, size[1]))


def _even(size: tuple[Fraction | int, Fraction | int]) -> tuple[int, int]:
    """Round down to whole chroma samples, of which there is at least one."""
    width, height = (max(2, int(side) // 2 * 2) for side in size)
    return width, height
