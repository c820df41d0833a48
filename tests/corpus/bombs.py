"""Small files that ask for very much: pixels, frames, samples, channels, streams."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from types import MappingProxyType

from tests.corpus.specimen import (
    SUCCESS,
    TOO_LARGE,
    TOO_LONG,
    UNREADABLE,
    UNSUPPORTED,
    Attack,
    Material,
    ffmpeg,
    literal,
)

_BLANK = "-f lavfi -i color=gray:s={0}x{0}:r=25"


def blank(name: str, side: int, words: str) -> Attack:
    """Film one grey picture."""
    source = f"-f lavfi -i color=gray:s={side}x{side}:r=25 -frames:v 1 {words}"
    return Attack(ffmpeg(name, source), TOO_LARGE)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width: int, height: int, depth: int = 1) -> bytes:
    """Draw nothing, on a canvas of any size: a bit a pixel, so that it packs well."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width * depth + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(min(height, 20_000))) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
    )


def bmp(width: int, height: int) -> bytes:
    """Claim a picture of any size, and bring none of it."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def wav(rate_hz: int, channels: int, frames: int, bits: int = 16) -> bytes:
    """Record silence of any rate on any number of channels."""
    block = channels * bits // 8
    head = struct.pack(
        "<HHIIHH", 1, channels, rate_hz, rate_hz * block % 2**32, block % 2**16, bits
    )
    data = bytes(min(frames * block, 4 * 10**6))
    chunks = b"fmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def stretched(material: Material) -> bytes:
    """Claim that each pixel is very much wider than high, so that the picture seen is huge."""
    words = "-i {film} -vf setsar=5000/1:max=5000 -c:v libx264 -preset ultrafast"
    return material.made("stretched.mkv", words)


def two_sizes(material: Material, small: int, large: int, frames: int) -> bytes:
    """Film what becomes larger on its way, as recordings of a browser do."""
    parts = []
    for side, count in ((small, 6), (large, frames)):
        words = f"-i {{film}} -vf scale={side}:{side} -frames:v {count} -c:v libx264"
        parts.append(material.made(f"part{side}.h264", f"{words} -preset ultrafast -f h264"))
    raw = material.place / "two.h264"
    raw.write_bytes(b"".join(parts))
    return material.made("two.mp4", "-f h264 -r 25 -i {0} -c copy -movflags +faststart", raw)


def grown(material: Material) -> bytes:
    return two_sizes(material, 128, 160, frames=12)


def exploded(material: Material) -> bytes:
    return two_sizes(material, 128, 3200, frames=2)


def many_streams(material: Material) -> bytes:
    return material.made("many.mp4", "-i {voice} " + "-map 0 " * 300 + "-c:a aac -t 0.1")


_GAP = "-i {film} -vf setpts='lt(0\\,N)*6*3600/TB' -frames:v 2 -fps_mode passthrough"
_LONG_WAV = wav(1, 1, 200_000)
_FAST_OPUS = "-b:a 6k -compression_level 0 -frame_duration 60 -f ogg"
_SILENCE = "-f lavfi -i anullsrc=r=48000"

BOMBS: Mapping[str, Attack] = MappingProxyType(
    {
        "a film of 8192 x 8192": blank("a.mp4", 8192, "-c:v libx264 -preset ultrafast"),
        "a photograph of 12000 x 12000": blank("a.jpg", 12_000, "-c:v mjpeg"),
        "a film of photographs of 12000 x 12000": Attack(
            ffmpeg("a.mov", f"{_BLANK.format(12_000)} -frames:v 1 -c:v mjpeg"),
            UNSUPPORTED,
        ),
        "a film of HEVC of 4352 x 2304": Attack(
            ffmpeg(
                "b.mp4",
                "-f lavfi -i color=gray:s=4352x2304:r=25 -frames:v 1 -c:v libx265 -preset ultrafast"
                " -x265-params log-level=none",
            ),
            TOO_LARGE,
        ),
        "a film of VP9 of 4096 x 4096": blank(
            "a.webm", 4096, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"
        ),
        "a blank sheet of 20000 x 20000": Attack(lambda _: png(20_000, 20_000), TOO_LARGE),
        "a canvas of 60000 x 60000 and nothing on it": Attack(
            lambda _: bmp(60_000, 60_000),
            f"{TOO_LARGE}|{UNREADABLE}",
        ),
        "a canvas of negative size": Attack(
            literal(bmp(-(2**31), -(2**31))),
            f"{TOO_LARGE}|{UNREADABLE}",
        ),
        "pixels 5000 times as wide as high": Attack(stretched, TOO_LARGE),
        "a film that grows on its way": Attack(grown, SUCCESS),
        "a film that explodes on its way": Attack(exploded, TOO_LARGE),
        "two frames six hours apart": Attack(ffmpeg("gap.mkv", _GAP), TOO_LONG),
        "a thousand frames a second": Attack(
            ffmpeg("fast.mp4", "-f lavfi -i color=gray:s=64x64:r=1000 -t 2 -c:v libx264"),
            UNSUPPORTED,
        ),
        "one sample a second": Attack(literal(_LONG_WAV), voice=UNSUPPORTED),
        "no sample a second": Attack(literal(wav(0, 1, 1000)), voice=UNREADABLE),
        "four thousand million samples a second": Attack(
            literal(wav(2**32 - 1, 1, 1000)), voice=UNREADABLE
        ),
        "a voice of 768 kHz": Attack(literal(wav(768_000, 1, 76_800)), voice=UNSUPPORTED),
        "64 channels": Attack(literal(wav(48_000, 64, 4800)), voice=f"{UNSUPPORTED}|{UNREADABLE}"),
        "65535 channels": Attack(literal(wav(48_000, 65_535, 10)), voice=UNREADABLE),
        "300 streams": Attack(
            many_streams, f"{UNREADABLE}|{UNSUPPORTED}", f"{UNREADABLE}|{UNSUPPORTED}"
        ),
        "eleven minutes of silence": Attack(
            ffmpeg("long.flac", f"{_SILENCE} -t 661 -c:a flac"), voice=TOO_LONG
        ),
        "eleven minutes of silence of unknown length": Attack(
            ffmpeg(
                "long.opus",
                f"{_SILENCE} -t 661 -c:a libopus {_FAST_OPUS}",
            ),
            voice=TOO_LONG,
        ),
    }
)
