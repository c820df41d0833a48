"""What media may be: the whitelists and bounds of everything that ffmpeg opens for a stranger.

The lists are short on purpose: of FFmpeg's hundreds of demuxers and decoders, the exotic ones are
where its security advisories are found. ``-max_alloc``, ``-max_streams`` and ``-max_pixels`` are
FFmpeg's own options (ffmpeg-formats, ffmpeg-codecs).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.errors import MediaUnreadable

#: Demuxers of clips and sounds. AVI, MPEG-TS and CAF stay out: 2026's bugs were found there.
CLIP_FORMATS = ("mov", "matroska", "webm", "wav", "mp3", "ogg", "flac", "aac")
#: First bytes of the still images that are accepted, and the demuxer that reads a single picture
#: from the file itself. A file's name is no evidence.
STILL_DEMUXERS = {
    b"\x89PNG\r\n\x1a\n": "png_pipe",
    b"\xff\xd8\xff": "jpeg_pipe",
    b"BM": "bmp_pipe",
    b"RIFF....WEBP": "webp_pipe",
}

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

#: The codecs behind these decoders, as ffprobe names them.
VIDEO_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4"})
AUDIO_CODECS = frozenset(AUDIO_DECODERS) - {"mp3float", "libopus", "libvorbis"}

#: The same in words for the caller.
ACCEPTED = (
    "MP4, MOV, MKV and WebM with H.264, HEVC, VP8, VP9, AV1 or MPEG-4",
    "PNG, JPEG, WebP and BMP images",
    "WAV, MP3, Ogg, FLAC and AAC sound",
)

#: Codecs that may be present in a file as long as nobody decodes them: a song's cover, a film's
#: subtitles, the sound of a face.
BYSTANDERS = {
    "v": ("mjpeg", "png", "bmp", "gif", "webp"),
    "a": (
        *AUDIO_DECODERS, "ac3", "eac3", "mp2", "pcm_s16be", "pcm_s24be", "pcm_s32be", "pcm_f64le",
        "pcm_alaw", "pcm_mulaw", "amrnb", "amrwb", "adpcm_ima_qt", "dca", "truehd", "wmav2",
    ),
    "s": (
        "mov_text", "srt", "subrip", "ass", "ssa", "webvtt", "text", "dvdsub", "dvbsub", "pgssub",
    ),
}  # fmt: skip

MAX_STREAMS = 16
#: A large host has more cores than a picture has work for, and every thread costs memory.
MAX_THREADS = 12
#: Largest single allocation of a demuxer or decoder: a photograph of 48 megapixels, with alpha.
MAX_ALLOC_BYTES = 256 * 1024 * 1024
#: How far a prober reads before it must know what a file is.
PROBE_BYTES = 20_000_000
PROBE_MICROSECONDS = 20_000_000
#: What a prober may compute; it needs a tenth of a second, or one for a large photograph.
PROBE_CPU_SECONDS = 30

#: A phone's photograph has six times as many pixels as its video.
STILL_FACTOR = 6

SAMPLE_RATES_HZ = range(8_000, 192_001)
MAX_CHANNELS = 8
#: The smallest picture in which a face can be found at all.
MIN_SIDE_PIXELS = 32
#: One frame at 25 a second: with less of a voice there is nothing to show.
MIN_VOICE_SECONDS = 0.04
#: A file that holds less than this share of what it declares is cut off.
LEAST_SHARE_OF_DECLARED = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bound what one job may bring; each is a setting of the operator."""

    #: 4K, either way up; a still image may have more, and is shrunk to it.
    max_pixels: int = 3840 * 2160
    max_fps: float = 120
    max_video_seconds: float = 600
    max_audio_seconds: float = 600
    #: Seconds without a byte from a decoder or a swallowed byte by an encoder.
    stall_seconds: float = 30

    def pixels_of(self, *, still: bool) -> int:
        """Return how many pixels a source may have."""
        return self.max_pixels * STILL_FACTOR if still else self.max_pixels


DEFAULT_LIMITS = Limits()


def still_demuxer(path: Path) -> str | None:
    """Return the demuxer for a still image, or None for a clip; raise MediaUnreadable if empty."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise MediaUnreadable(f"The file cannot be opened: {error.strerror}.") from error
    if not head:
        raise MediaUnreadable("The file is empty.")
    for signature, demuxer in STILL_DEMUXERS.items():
        if re.match(signature, head, re.DOTALL):
            return demuxer
    return None


def threads() -> int:
    """Return how many threads a decoder or encoder may start."""
    return min(MAX_THREADS, 2 * (os.cpu_count() or 1))


def input_options(path: Path, limits: Limits) -> dict[str, Any]:
    """Return the options that must stand before every file that a stranger sent."""
    still = still_demuxer(path)
    options: dict[str, Any] = {
        "max_alloc": MAX_ALLOC_BYTES,
        "protocol_whitelist": "file",
        "format_whitelist": still or ",".join(CLIP_FORMATS),
        "codec_whitelist": ",".join(STILL_DECODERS if still else VIDEO_DECODERS + AUDIO_DECODERS),
        # One more than allowed, so that our own checks can say which limit it was. Of a Matroska
        # file ffmpeg 7.1 leaves out what is beyond, and does not complain.
        "max_streams": MAX_STREAMS + 1,
        "max_pixels": limits.pixels_of(still=still is not None) + 1,
        "probesize": PROBE_BYTES,
        "analyzeduration": PROBE_MICROSECONDS,
    }
    # Pinned, not guessed: two pictures in one file look like a stream of them.
    return {**options, "format": still} if still else options
