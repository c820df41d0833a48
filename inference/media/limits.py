"""What media may be: the whitelists and bounds of everything that ffmpeg opens for a stranger.

Source: reference/reliability.md sections 1.1 and 1.2, where each rule was tried against attacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Demuxers of clips and sounds. AVI, MPEG-TS and CAF stay out: 2026's bugs were found there.
CLIP_FORMATS = ("mov", "matroska", "webm", "wav", "mp3", "ogg", "flac", "aac")
#: Demuxers of still images, each of which reads a single picture from the file itself.
STILL_FORMATS = ("png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe")

VIDEO_DECODERS = ("h264", "hevc", "vp8", "vp9", "libvpx", "libvpx-vp9", "libdav1d", "av1", "mpeg4")
AUDIO_DECODERS = (
    "aac",
    "mp3",
    "mp3float",
    "opus",
    "libopus",
    "vorbis",
    "libvorbis",
    "flac",
    "alac",
    "pcm_s16le",
    "pcm_s24le",
    "pcm_s32le",
    "pcm_f32le",
    "pcm_u8",
)
STILL_DECODERS = ("png", "mjpeg", "webp", "bmp")

#: The same in words for the caller.
ACCEPTED = (
    "MP4, MOV, MKV and WebM with H.264, HEVC, VP8, VP9, AV1 or MPEG-4",
    "PNG, JPEG, WebP and BMP images",
    "WAV, MP3, Ogg, FLAC and AAC sound",
)

#: First bytes of the still images that are accepted; a file's name is no evidence.
STILL_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")
#: A WebP file begins with RIFF, four bytes of length, and this.
WEBP_SIGNATURE = b"WEBP"

MAX_STREAMS = 16
#: Largest single allocation of a demuxer or decoder.
MAX_ALLOC_BYTES = 512 * 1024 * 1024
#: How far a prober reads before it must know what a file is.
PROBE_BYTES = 20_000_000
PROBE_MICROSECONDS = 20_000_000

SAMPLE_RATES_HZ = range(8_000, 192_001)
MAX_CHANNELS = 8
#: The smallest picture in which a face can be found at all.
MIN_SIDE_PIXELS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bound what one job may bring; each is a setting of the operator."""

    #: 4K, either way up.
    max_pixels: int = 3840 * 2160
    max_fps: float = 120
    max_video_seconds: float = 600
    max_audio_seconds: float = 600
    #: Seconds without a byte from a decoder or a swallowed byte by an encoder.
    stall_seconds: float = 30


def input_options(*, still: bool, limits: Limits) -> dict[str, Any]:
    """Return the options that must stand before every file that a stranger sent."""
    formats = STILL_FORMATS if still else CLIP_FORMATS
    decoders = STILL_DECODERS if still else VIDEO_DECODERS + AUDIO_DECODERS
    return {
        "max_alloc": MAX_ALLOC_BYTES,
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(formats),
        "codec_whitelist": ",".join(decoders),
        "max_streams": MAX_STREAMS,
        # One more than allowed, so that our own check can say which limit it was.
        "max_pixels": limits.max_pixels + 1,
        "probesize": PROBE_BYTES,
        "analyzeduration": PROBE_MICROSECONDS,
    }


def is_still(head: bytes) -> bool:
    """Tell a still image from a clip by its first sixteen bytes."""
    return head.startswith(STILL_SIGNATURES) or head[8:12] == WEBP_SIGNATURE
