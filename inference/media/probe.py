"""Say what a file is, and refuse what the worker cannot or must not work with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from handler.errors import (
    AudioEmpty,
    MediaError,
    MediaTooLarge,
    MediaTooLong,
    MediaUnreadable,
    OutputInvalid,
    StreamMissing,
    UnsupportedMedia,
)
from handler.ports import AudioInfo, VideoInfo
from handler.result import Output
from inference.media.ffprobe import Description, Stream, describe
from inference.media.limits import (
    ACCEPTED,
    AUDIO_CODECS,
    LEAST_SHARE_OF_DECLARED,
    MAX_CHANNELS,
    MIN_SIDE_PIXELS,
    MIN_VOICE_SECONDS,
    SAMPLE_RATES_HZ,
    VIDEO_CODECS,
    Limits,
)
from inference.media.picture import video_info
from inference.media.sound import measure_seconds

#: A film of one frame is a still image in a costly coat; its length may be rounded.
LEAST_FRAMES = 1.5
#: Formats that say exactly how long their sound is; of others ffprobe guesses from the bit rate.
DECLARING = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "flac"})


@dataclass(frozen=True, slots=True)
class FfprobeGate:
    """Implement the core's ``Probe`` with ffprobe, under the limits of one operator."""

    limits: Limits

    def face(self, path: Path) -> VideoInfo:
        """Describe the picture of a clip or a still image.

        Raises MediaUnreadable, StreamMissing, UnsupportedMedia, MediaTooLarge or MediaTooLong.
        """
        description = describe(path, self.limits)
        stream = description.first("video")
        if stream is None:
            raise StreamMissing("The face has no picture: neither a video stream nor an image.")
        if not description.still:
            _check_codec(stream, VIDEO_CODECS)
            self._check_length("video", description, self.limits.max_video_seconds)
        self._check_stored_size(stream, still=description.still)
        info = video_info(stream, description, path, self.limits)
        self._check_picture(info)
        return info

    def voice(self, path: Path) -> AudioInfo:
        """Describe the sound of a file, its length measured by decoding it.

        Raises MediaUnreadable, StreamMissing, UnsupportedMedia, AudioEmpty or MediaTooLong.
        """
        description = describe(path, self.limits)
        stream = description.first("audio")
        if stream is None:
            raise StreamMissing("The voice has no sound stream.")
        _check_codec(stream, AUDIO_CODECS)
        rate, channels = int(stream.get("sample_rate", 0)), int(stream.get("channels", 0))
        _check_sound(rate, channels)
        self._check_length("voice", description, self.limits.max_audio_seconds)
        seconds = measure_seconds(path, self.limits)
        _check_heard(seconds, stream, description)
        codec = str(stream["codec_name"])
        return AudioInfo(codec=codec, rate_hz=rate, channels=channels, duration=seconds)

    def output(self, path: Path) -> Output:
        """Describe a finished clip, found out by the same means as a stranger's.

        Raises :class:`OutputInvalid` if it cannot be read back, or is not what a clip is made of.
        """
        try:
            description = describe(path, self.limits)
            video, audio = description.first("video"), description.first("audio")
            if video is None or audio is None:
                raise OutputInvalid("The finished video lacks its picture or its sound.")
            output = _output(video, audio, description, path)
        except (OSError, MediaError, KeyError, ValueError) as error:
            raise OutputInvalid("The finished video cannot be read back.") from error
        _check_codecs(output)
        return output

    def _check_stored_size(self, stream: Stream, *, still: bool) -> None:
        width, height = int(stream.get("width", 0)), int(stream.get("height", 0))
        most = self.limits.pixels_of(still=still)
        if not width * height:
            raise MediaUnreadable("The picture does not say how large it is: it is damaged.")
        if width * height > most:
            raise MediaTooLarge(
                f"The picture is {width}x{height}; at most {most} pixels are accepted."
            )

    def _check_picture(self, info: VideoInfo) -> None:
        # As it is seen: pixels may claim to be thousands of times as wide as high.
        most = self.limits.pixels_of(still=info.fps is None)
        if info.width * info.height > most:
            raise MediaTooLarge(
                f"The picture is shown as {info.width}x{info.height}; at most {most} pixels are"
                " accepted."
            )
        if min(info.width, info.height) < MIN_SIDE_PIXELS:
            raise UnsupportedMedia(f"The picture is {info.width}x{info.height}: no face fits.")
        if info.fps is not None and not 1 <= info.fps <= self.limits.max_fps:
            raise UnsupportedMedia(f"The video has {float(info.fps):g} frames a second.")
        if info.fps is not None and 0 < info.duration * info.fps < LEAST_FRAMES:
            raise UnsupportedMedia("The video has a single frame: send it as a still image.")

    @staticmethod
    def _check_length(what: str, description: Description, most: float) -> None:
        """Refuse by the longest length that the file declares anywhere."""
        places = (description.container, *description.streams)
        seconds = max(float(place.get("duration", 0)) for place in places)
        if seconds > most:
            raise MediaTooLong(
                f"The {what} lasts {seconds:.0f} s; at most {most:g} s are accepted."
            )


def _check_codec(stream: Stream, accepted: frozenset[str]) -> None:
    codec = str(stream.get("codec_name"))
    if codec not in accepted:
        raise UnsupportedMedia(
            f"The codec {codec} is not accepted. Accepted are {'; '.join(ACCEPTED)}."
        )


def _check_sound(rate: int, channels: int) -> None:
    if rate not in SAMPLE_RATES_HZ or not 1 <= channels <= MAX_CHANNELS:
        raise UnsupportedMedia(
            f"The voice has {channels} channels at {rate} Hz; accepted are up to {MAX_CHANNELS}"
            f" at {SAMPLE_RATES_HZ.start} to {SAMPLE_RATES_HZ.stop - 1} Hz."
        )


def _check_heard(seconds: float, stream: Stream, description: Description) -> None:
    """Compare what was decoded with what is needed, and with what was declared."""
    if not seconds:
        raise AudioEmpty("The voice holds no sound at all.")
    if seconds < MIN_VOICE_SECONDS:
        raise UnsupportedMedia(
            f"The voice lasts {seconds:.3f} s; less than {MIN_VOICE_SECONDS:g} s says nothing."
        )
    known = str(description.container.get("format_name")) in DECLARING
    declared = float(stream.get("duration", 0)) if known else 0.0
    if seconds < LEAST_SHARE_OF_DECLARED * declared:
        raise MediaUnreadable(
            f"The voice is cut off: it declares {declared:.2f} s and holds {seconds:.2f} s."
        )


def _output(video: Stream, audio: Stream, description: Description, path: Path) -> Output:
    return Output(
        width=int(video["width"]),
        height=int(video["height"]),
        fps=str(video["avg_frame_rate"]),
        frames=int(video["nb_frames"]),
        duration=float(description.container["duration"]),
        bytes=path.stat().st_size,
        sha256=_sha256(path),
        video_codec=str(video["codec_name"]),
        audio_codec=str(audio["codec_name"]),
    )


def _check_codecs(output: Output) -> None:
    if (output.video_codec, output.audio_codec) != ("h264", "aac"):
        raise OutputInvalid(
            f"The finished video is of {output.video_codec} and {output.audio_codec}."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
