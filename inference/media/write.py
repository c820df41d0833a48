"""Encode finished frames and the voice into one file, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg

from handler.errors import ProcessingError, Stage
from handler.job import SyncMode
from handler.ports import AudioInfo, VideoInfo
from inference.frame import Frame
from inference.media.child import ChildFailed, writing
from inference.media.limits import Limits
from inference.media.sound import voice_stream

#: Fast enough to keep up with a GPU on a few cores, at no visible loss.
PRESET = "veryfast"
AUDIO_BITRATE = "192k"
#: AAC in MP4 plays everywhere up to here.
AUDIO_CHANNELS = 2
AUDIO_RATE_HZ = 48_000
#: From this short side on, players take an untagged picture for BT.709; below, for BT.601.
HD_SHORT_SIDE = 720


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """Say how a clip is to be written."""

    width: int
    height: int
    fps: Fraction
    frames: int
    crf: int
    color: Mapping[str, str]
    voice: Path
    audio: AudioInfo
    sync_mode: SyncMode

    @property
    def seconds(self) -> float:
        """Length of the picture."""
        return float(self.frames / self.fps)


def color_tags(video: VideoInfo, width: int, height: int) -> dict[str, str]:
    """Return the colour tags of the output: the source's, or what players take it for.

    Always limited range, to which full-range sources are converted on reading.
    """
    standard = "bt709" if min(width, height) >= HD_SHORT_SIDE else "smpte170m"
    color = video.color
    return {
        "color_range": "tv",
        "colorspace": color.get("color_space", standard),
        "color_primaries": color.get("color_primaries", standard),
        "color_trc": color.get("color_transfer", standard),
    }


def write_clip(frames: Iterable[Frame], target: Path, spec: ClipSpec, limits: Limits) -> int:
    """Write frames and voice to an MP4 file; return how many frames went in.

    Raises :class:`ProcessingError`, stage postprocessing, if the encoder fails.
    """
    written = 0
    try:
        with writing(_command(target, spec, limits)) as encoder:
            for frame in frames:
                encoder.write(frame.buffer, limits.stall_seconds)
                written += 1
            encoder.finish(limits.stall_seconds)
    except ChildFailed as error:
        raise ProcessingError(f"The encoder failed: {error}", stage=Stage.POSTPROCESSING) from error
    return written


def _command(target: Path, spec: ClipSpec, limits: Limits) -> list[str]:
    picture = ffmpeg.input(
        "pipe:0",
        format="rawvideo",
        pix_fmt="yuv420p",
        video_size=(spec.width, spec.height),
        framerate=f"{spec.fps.numerator}/{spec.fps.denominator}",
        protocol_whitelist="pipe",
    )
    output = ffmpeg.output(
        picture.video,
        _voice(spec, limits),
        f"file:{target.absolute()}",
        format="mp4",
        vcodec="libx264",
        preset=PRESET,
        crf=spec.crf,
        pix_fmt="yuv420p",
        acodec="aac",
        audio_bitrate=AUDIO_BITRATE,
        ac=min(spec.audio.channels, AUDIO_CHANNELS),
        ar=min(spec.audio.rate_hz, AUDIO_RATE_HZ),
        movflags="+faststart",
        map_metadata=-1,
        **spec.color,
    )
    return list(output.global_args("-nostdin", "-v", "error", "-y").compile())


def _voice(spec: ClipSpec, limits: Limits) -> Any:
    sound = voice_stream(spec.voice, limits)
    if spec.sync_mode is SyncMode.SILENCE:
        return sound.filter("apad", whole_dur=spec.seconds)
    if spec.sync_mode is SyncMode.CUT_OFF:
        return sound.filter("atrim", end=spec.seconds)
    return sound
