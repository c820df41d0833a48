"""Choose what encodes the picture: the graphics card's own encoder where it works, else x264."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction
from typing import Any

import ffmpeg
import numpy as np

from handler.errors import ToolMissing
from inference.frame import Frame
from inference.media.child import ChildFailed, writing
from inference.media.limits import Limits

#: Fast enough to keep up with a GPU on a few cores, at no visible loss.
X264_PRESET = "veryfast"
#: The middle of NVENC's scale, and its own choice: p1 is the fastest, p7 the finest.
NVENC_PRESET = "p4"
#: ``-cq`` counts like a CRF, but to it 0 means "automatic" (libavcodec/nvenc_h264.c).
NVENC_LEAST_CQ = 1
#: Width and height that every card with NVENC takes as H.264: NV_ENC_CAPS_WIDTH_MIN is 145 from
#: Turing on, NV_ENC_CAPS_WIDTH_MAX is 4096 (NVIDIA Video Codec SDK). For the height some cards
#: take less, but a picture that small costs x264 nothing.
NVENC_SIDES_PIXELS = range(145, 4096 + 1)

#: Side of the picture that NVENC is tried on; well within its bounds.
TRIAL_SIDE_PIXELS = 256
TRIAL_FPS = Fraction(25)
TRIAL_CRF = 18


class Encoder(StrEnum):
    """Name an encoder of H.264, in ffmpeg's words."""

    LIBX264 = "libx264"
    NVENC = "h264_nvenc"

    @property
    def needs_cuda(self) -> bool:
        """Tell whether its process opens the graphics card."""
        return self is Encoder.NVENC

    def fitting(self, width: int, height: int) -> Encoder:
        """Return this encoder, or x264 if it cannot take pictures of that size."""
        fits = width in NVENC_SIDES_PIXELS and height in NVENC_SIDES_PIXELS
        return self if fits else Encoder.LIBX264

    def options(self, crf: int) -> Mapping[str, str | int]:
        """Return ffmpeg's options for a picture of that quality: 0 is the best, 51 the worst.

        NVENC's target quality in variable bit rate is the nearest that it has to a CRF; a bit rate
        of 0 leaves the rate to it, and High is the profile that x264 picks by itself.
        """
        if self is Encoder.LIBX264:
            return {"vcodec": self, "preset": X264_PRESET, "crf": crf}
        return {
            "vcodec": self,
            "preset": NVENC_PRESET,
            "tune": "hq",
            "profile:v": "high",
            "rc": "vbr",
            "cq": max(NVENC_LEAST_CQ, crf),
            "b:v": 0,
        }


def choose_encoder(wish: Encoder | None, limits: Limits) -> Encoder:
    """Return the encoder that was wished for, or without a wish NVENC if it works here.

    Whether it works is found out by using it: a card may have no such encoder (A100, H100), a
    container may lack the driver's library for it, and all sessions of a card may be taken. x264
    is not tried.

    Raises :class:`ToolMissing` if NVENC is wished for and does not work, or needs to be tried and
    there is no ffmpeg.
    """
    if wish is Encoder.LIBX264:
        return wish
    try:
        _try_nvenc(limits)
    except ChildFailed as error:
        if wish is None:
            return Encoder.LIBX264
        raise ToolMissing(
            "NVENC does not work here: set ENCODER=auto to do without it, or run on a card that has"
            " it (A100 and H100 do not), with video among a container's NVIDIA_DRIVER_CAPABILITIES."
            f" ffmpeg says: {error}"
        ) from error
    return Encoder.NVENC


def picture_stream(width: int, height: int, fps: Fraction) -> Any:
    """Return ffmpeg's stream for frames that it is fed one after the other."""
    return ffmpeg.input(
        "pipe:0",
        format="rawvideo",
        pix_fmt="yuv420p",
        video_size=(width, height),
        framerate=f"{fps.numerator}/{fps.denominator}",
        protocol_whitelist="pipe",
    ).video


def _try_nvenc(limits: Limits) -> None:
    """Encode one blank picture as a job's are encoded, and throw it away."""
    side = TRIAL_SIDE_PIXELS
    picture = picture_stream(side, side, TRIAL_FPS)
    output = ffmpeg.output(picture, "-", format="null", **Encoder.NVENC.options(TRIAL_CRF))
    command = output.global_args("-nostdin", "-v", "error").compile()
    with writing(command, cuda=Encoder.NVENC.needs_cuda) as child:
        child.write(np.zeros(Frame.size_bytes(side, side), np.uint8), limits.stall_seconds)
        child.finish(limits.stall_seconds)
