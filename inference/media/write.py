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
from handler.ports import AudioInfo
from inference.frame import Frame
from inference.media.child import ChildFailed, writing
from inference.media.encoder import Encoder, picture_stream
from inference.media.limits import Limits, threads
from inference.media.sound import voice_stream

AUDIO_BITRATE = "192k"
#: The rates of AAC (ISO/IEC 14496-3, table 1.18) that play everywhere.
AUDIO_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


#: After the last frame the file is moved once on the disk, so that its index comes first.
FINISH_SECONDS = 300


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
    #: A picture of a size that it cannot take is left to x264.
    encoder: Encoder = Encoder.LIBX264

    @property
    def seconds(self) -> float:
        """Length of the picture."""
        return float(self.frames / self.fps)


def write_clip(frames: Iterable[Frame], target: Path, spec: ClipSpec, limits: Limits) -> int:
    """Write frames and voice to an MP4 file; return how many frames went in.

    Raises :class:`ProcessingError`, stage postprocessing, if the encoder fails. No other takes its
    place, whatever the reason: the frames that it was given are gone.
    """
    encoder = spec.encoder.fitting(spec.width, spec.height)
    command, written = _command(target, spec, encoder, limits), 0
    try:
        with writing(command, cuda=encoder.needs_cuda) as child:
            for frame in frames:
                child.write(frame.buffer, limits.stall_seconds)
                written += 1
            child.finish(FINISH_SECONDS)
    except ChildFailed as error:
        raise ProcessingError(f"The encoder failed: {error}", stage=Stage.POSTPROCESSING) from error
    return written


def _command(target: Path, spec: ClipSpec, encoder: Encoder, limits: Limits) -> list[str]:
    # Said of the frames, not asked of the encoder: from 7.1 on, ffmpeg would convert to the matrix
    # that an encoder is asked for, and forgets what is asked of primaries and transfer.
    picture = picture_stream(spec.width, spec.height, spec.fps).filter("setparams", **spec.color)
    output = ffmpeg.output(
        picture,
        _voice(spec, limits),
        f"file:{target.absolute()}",
        format="mp4",
        pix_fmt="yuv420p",
        acodec="aac",
        audio_bitrate=AUDIO_BITRATE,
        movflags="+faststart",
        map_metadata=-1,
        threads=threads(),
        **encoder.options(spec.crf),
    )
    return list(output.global_args("-nostdin", "-v", "error", "-y").compile())


def _voice(spec: ClipSpec, limits: Limits) -> Any:
    enough = (rate for rate in AUDIO_RATES_HZ if rate >= spec.audio.rate_hz)
    sound = voice_stream(
        spec.voice,
        limits,
        rate_hz=next(enough, AUDIO_RATES_HZ[-1]),
        layout="mono" if spec.audio.channels == 1 else "stereo",
    )
    if spec.sync_mode is SyncMode.SILENCE:
        return sound.filter("apad", whole_dur=spec.seconds)
    if spec.sync_mode is SyncMode.CUT_OFF:
        return sound.filter("atrim", end=spec.seconds)
    return sound
