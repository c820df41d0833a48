"""Say what a file is, and refuse what the worker cannot or must not work with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np

from handler.errors import (
    AudioEmpty,
    MediaTooLarge,
    MediaTooLong,
    MediaUnreadable,
    OutputInvalid,
    StreamMissing,
    UnsupportedMedia,
)
from handler.ports import AudioInfo, VideoInfo
from handler.result import Output
from inference.media.child import ChildFailed, reading
from inference.media.limits import (
    ACCEPTED,
    MAX_CHANNELS,
    MIN_SIDE_PIXELS,
    SAMPLE_RATES_HZ,
    Limits,
    input_options,
    is_still,
)
from inference.media.sound import measure_seconds

#: Longest description of a file that is read.
DESCRIPTION_BYTES = 1024**2
#: Frame rates that cameras and editors use; a variable rate is brought to the next above its mean.
USUAL_RATES = tuple(
    Fraction(*rate)
    for rate in (
        (24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (48, 1), (50, 1), (60000, 1001),
        (60, 1), (90, 1), (100, 1), (120, 1),
    )
)  # fmt: skip
#: A rate this close to a usual one is that one, written down with rounded timestamps.
RATE_TOLERANCE = 0.002

#: What ffprobe says of a file that a whitelist stopped; it has no exit code for that.
_REFUSED = re.compile(r"(?:Codec \((?P<codec>\w+)\)|Format) not on whitelist")


@dataclass(frozen=True, slots=True)
class FfprobeGate:
    """Implement the core's ``Probe`` with ffprobe, under the limits of one operator."""

    limits: Limits

    def face(self, path: Path) -> VideoInfo:
        """Describe the picture of a clip or a still image.

        Raises MediaUnreadable, StreamMissing, UnsupportedMedia, MediaTooLarge or MediaTooLong.
        """
        still = _sniff(path)
        description = _describe(path, still=still, limits=self.limits)
        stream = _first(description, "video")
        if stream is None:
            raise StreamMissing("The face has no picture: neither a video stream nor an image.")
        info = _video_info(stream, description, still=still)
        self._check_picture(info)
        return info

    def voice(self, path: Path) -> AudioInfo:
        """Describe the sound of a file, its length measured by decoding it.

        Raises MediaUnreadable, StreamMissing, UnsupportedMedia, AudioEmpty or MediaTooLong.
        """
        if _sniff(path):
            raise StreamMissing("The voice is an image and has no sound.")
        description = _describe(path, still=False, limits=self.limits)
        stream = _first(description, "audio")
        if stream is None:
            raise StreamMissing("The voice has no sound stream.")
        rate, channels = int(stream.get("sample_rate", 0)), int(stream.get("channels", 0))
        if rate not in SAMPLE_RATES_HZ or not 1 <= channels <= MAX_CHANNELS:
            raise UnsupportedMedia(
                f"The voice has {channels} channels at {rate} Hz; accepted are up to {MAX_CHANNELS}"
                f" at {SAMPLE_RATES_HZ.start} to {SAMPLE_RATES_HZ.stop - 1} Hz."
            )
        self._check_length("voice", _seconds(stream, description), self.limits.max_audio_seconds)
        seconds = measure_seconds(path, self.limits)
        if not seconds:
            raise AudioEmpty("The voice holds no sound at all.")
        codec = str(stream.get("codec_name"))
        return AudioInfo(codec=codec, rate_hz=rate, channels=channels, duration=seconds)

    def output(self, path: Path) -> Output:
        """Describe a finished clip; raise OutputInvalid if it cannot be read back."""
        try:
            description = _describe(path, still=False, limits=self.limits)
        except MediaUnreadable as error:
            raise OutputInvalid("The finished video cannot be read back.") from error
        video, audio = _first(description, "video"), _first(description, "audio")
        if video is None or audio is None:
            raise OutputInvalid("The finished video lacks its picture or its sound.")
        return Output(
            width=int(video["width"]),
            height=int(video["height"]),
            fps=str(video["avg_frame_rate"]),
            frames=int(video["nb_frames"]),
            duration=float(description["format"]["duration"]),
            bytes=path.stat().st_size,
            sha256=_sha256(path),
            video_codec=str(video["codec_name"]),
            audio_codec=str(audio["codec_name"]),
        )

    def _check_picture(self, info: VideoInfo) -> None:
        pixels = info.width * info.height
        if min(info.width, info.height) < MIN_SIDE_PIXELS:
            raise UnsupportedMedia(f"The picture is {info.width}x{info.height}: no face fits.")
        if pixels > self.limits.max_pixels:
            raise MediaTooLarge(
                f"The picture has {pixels} pixels; at most {self.limits.max_pixels} are accepted."
            )
        if info.fps is None:
            return
        if not 1 <= info.fps <= self.limits.max_fps:
            raise UnsupportedMedia(f"The video has {float(info.fps):g} frames a second.")
        self._check_length("video", info.duration, self.limits.max_video_seconds)

    @staticmethod
    def _check_length(what: str, seconds: float, most: float) -> None:
        if seconds > most:
            raise MediaTooLong(
                f"The {what} lasts {seconds:.0f} s; at most {most:g} s are accepted."
            )


def _sniff(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise MediaUnreadable("The file is empty.")
    return is_still(head)


def _describe(path: Path, *, still: bool, limits: Limits) -> Any:
    options = ffmpeg.input(f"file:{path.absolute()}", **input_options(still=still, limits=limits))
    words = ffmpeg.output(options, "-").compile()
    # ffprobe takes the input options of ffmpeg, and no output.
    source = words[1 : words.index("-i") + 2]
    wanted = ["-show_format", "-show_streams"]
    if still:
        wanted += ["-show_frames", "-read_intervals", "%+#1"]
    buffer = np.empty(DESCRIPTION_BYTES, np.uint8)
    try:
        with reading(["ffprobe", "-v", "error", *source, "-of", "json", *wanted]) as child:
            size = child.read_into(buffer, limits.stall_seconds)
            child.finish(limits.stall_seconds)
        return json.loads(buffer[:size].tobytes())
    except (ChildFailed, ValueError) as error:
        if refused := _REFUSED.search(str(error)):
            what = f"codec {refused['codec']}" if refused["codec"] else "file's format"
            raise UnsupportedMedia(
                f"The {what} is not accepted. Accepted are {'; '.join(ACCEPTED)}."
            ) from error
        raise MediaUnreadable(
            "The file is not of an accepted media format, or is damaged.", reason=str(error)
        ) from error


def _first(description: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    for stream in description.get("streams", []):
        cover = stream.get("disposition", {}).get("attached_pic")
        if stream.get("codec_type") == kind and not cover:
            return dict(stream)
    return None


def _video_info(
    stream: Mapping[str, Any], description: Mapping[str, Any], *, still: bool
) -> VideoInfo:
    width, height = int(stream.get("width", 0)), int(stream.get("height", 0))
    aspect = _fraction(stream.get("sample_aspect_ratio", "1:1").replace(":", "/")) or Fraction(1)
    turned = _rotation(stream, description)
    shown = (round(width * aspect), height)
    width, height = shown if turned % 180 == 0 else shown[::-1]
    return VideoInfo(
        codec=str(stream.get("codec_name")),
        width=width,
        height=height,
        fps=None if still else _frame_rate(stream),
        duration=0.0 if still else _seconds(stream, description),
        pixel_format=str(stream.get("pix_fmt")),
        color=_color(stream),
        start_time=float(stream.get("start_time", 0)),
        sample_aspect=aspect,
        rotation=turned,
    )


def _rotation(stream: Mapping[str, Any], description: Mapping[str, Any]) -> int:
    """Return by how many degrees clockwise the picture must be turned to stand upright."""
    frames = description.get("frames", [])
    places = [stream, *frames[:1]]
    for place in places:
        for note in place.get("side_data_list", []):
            if "rotation" in note:
                return round(-float(note["rotation"]) / 90) * 90 % 360
    return 0


def _frame_rate(stream: Mapping[str, Any]) -> Fraction:
    """Return the constant rate at which a stream is read: its own, or one no frame is lost at."""
    nominal = _fraction(stream.get("r_frame_rate", "0/0"))
    mean = _fraction(stream.get("avg_frame_rate", "0/0")) or nominal
    if nominal is None or mean is None:
        raise MediaUnreadable("The video does not say how many frames it has a second.")
    if abs(nominal - mean) <= mean * RATE_TOLERANCE:
        return nominal
    fitting = (rate for rate in USUAL_RATES if rate >= mean * Fraction(1 - RATE_TOLERANCE))
    return min(nominal, next(fitting, nominal))


def _seconds(stream: Mapping[str, Any], description: Mapping[str, Any]) -> float:
    declared = (stream.get("duration"), description.get("format", {}).get("duration"))
    return max((float(value) for value in declared if value is not None), default=0.0)


def _color(stream: Mapping[str, Any]) -> dict[str, str]:
    names = ("color_range", "color_space", "color_transfer", "color_primaries")
    known = {name: str(stream[name]) for name in names if name in stream}
    return {name: value for name, value in known.items() if value not in ("unknown", "reserved")}


def _fraction(text: str) -> Fraction | None:
    try:
        return Fraction(text) or None
    except (ValueError, ZeroDivisionError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
