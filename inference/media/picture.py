"""What ffprobe's answer says of a picture: size, rate, length, which way is up."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from handler.errors import MediaUnreadable
from handler.ports import UPRIGHT, Orientation, VideoInfo
from inference.media.ffprobe import Description, Stream, packet_times
from inference.media.limits import Limits

#: Frame rates that cameras and editors use; a variable rate is brought to the next above its mean.
USUAL_RATES = tuple(
    Fraction(*rate)
    for rate in (
        (24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (48, 1), (50, 1), (60000, 1001),
        (60, 1), (90, 1), (100, 1), (120, 1),
    )
)  # fmt: skip
#: A rate this close to a usual one is that one, written down with rounded timestamps.
SAME_RATE = Fraction(1, 500)
#: A variable rate may lie this much above a usual one and still be brought to it.
NEAR_RATE = Fraction(3, 100)
#: How much of a file that declares no rate is looked at to measure it.
MEASURED_SECONDS = 8.0
_CLOCK = re.compile(r"(?P<hours>\d{1,6}):(?P<minutes>\d\d):(?P<seconds>\d\d(\.\d{1,12})?)")
#: A display matrix holds 16.16 fixed-point numbers.
MATRIX_ONE = 1 << 16


def video_info(stream: Stream, description: Description, path: Path, limits: Limits) -> VideoInfo:
    """Read the description of a picture stream."""
    width, height = int(stream.get("width", 0)), int(stream.get("height", 0))
    aspect = _fraction(stream.get("sample_aspect_ratio", "1:1").replace(":", "/")) or Fraction(1)
    orientation = _orientation(stream, description)
    shown = (round(width * aspect), height)
    width, height = shown if orientation[0] else shown[::-1]
    return VideoInfo(
        codec=str(stream.get("codec_name")),
        width=width,
        height=height,
        fps=None if description.still else _frame_rate(stream, path, limits),
        duration=0.0 if description.still else _seconds(stream, description),
        pixel_format=str(stream.get("pix_fmt")),
        color=_color(stream),
        start_time=float(stream.get("start_time", 0)),
        sample_aspect=aspect,
        orientation=orientation,
    )


def _orientation(stream: Stream, description: Description) -> Orientation:
    """Return the display matrix: EXIF of a still, or what a phone wrote into its film."""
    for place in (stream, *description.frames[:1]):
        for note in place.get("side_data_list", []):
            numbers = re.findall(r"(?<=[\s:])-?\d+(?=\s|$)", note.get("displaymatrix", ""))
            if len(numbers) == len("abucdvxyw"):
                a, b, _, c, d, *_ = (round(int(number) / MATRIX_ONE) for number in numbers)
                # A turn that is no quarter of a circle is not undone, nor is any other distortion.
                quarter = sorted(map(abs, (a, b, c, d))) == [0, 0, 1, 1] and a * d != b * c
                return (a, b, c, d) if quarter else UPRIGHT
    return UPRIGHT


def _frame_rate(stream: Stream, path: Path, limits: Limits) -> Fraction:
    """Return the constant rate at which a stream is read: its own, or one that loses few frames."""
    nominal = _fraction(stream.get("r_frame_rate", "0/0"))
    mean = _fraction(stream.get("avg_frame_rate", "0/0"))
    if mean is None or mean > USUAL_RATES[-1]:
        # A browser writes no rate, and times as uneven as its camera.
        mean = _measured_rate(path, limits)
    if nominal is not None and abs(nominal - mean) <= mean * SAME_RATE:
        return _as_usual(nominal)
    fitting = (rate for rate in USUAL_RATES if rate >= mean * (1 - NEAR_RATE))
    return next(fitting, mean)


def _as_usual(rate: Fraction) -> Fraction:
    nearest = min(USUAL_RATES, key=lambda usual: abs(usual - rate))
    return nearest if abs(nearest - rate) <= rate * SAME_RATE / 4 else rate


def _measured_rate(path: Path, limits: Limits) -> Fraction:
    times = packet_times(path, MEASURED_SECONDS, limits)
    if len(times) < len(("one", "another")) or times[-1] <= times[0]:
        raise MediaUnreadable("The video does not say how many frames it has a second.")
    return Fraction((len(times) - 1) / (times[-1] - times[0])).limit_denominator(1001)


def _seconds(stream: Stream, description: Description) -> float:
    """Return how long the picture lasts, as declared; 0 if nothing but other streams says."""
    if "duration" in stream:
        return float(stream["duration"])
    start = float(stream.get("start_time", 0))
    # Matroska keeps when a stream ends in a note, in which anybody can write anything.
    if end := _CLOCK.fullmatch(stream.get("tags", {}).get("DURATION", "")):
        return int(end["hours"]) * 3600 + int(end["minutes"]) * 60 + float(end["seconds"]) - start
    alone = len(description.streams) == 1
    return float(description.container.get("duration", 0)) - start if alone else 0.0


def _color(stream: Stream) -> dict[str, str]:
    names = ("color_range", "color_space", "color_transfer", "color_primaries")
    known: dict[str, Any] = {name: stream[name] for name in names if name in stream}
    return {name: str(value) for name, value in known.items() if value != "unknown"}


def _fraction(text: str) -> Fraction | None:
    try:
        return Fraction(text) or None
    except (ValueError, ZeroDivisionError):
        return None
