"""Honest files, damaged at random: the same seed damages them in the same way for ever."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from tests.corpus.specimen import Material, ffmpeg

_VPX = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"
_X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none"
_FRAGMENTED = "-movflags +empty_moov+default_base_moof"
_HALF = "-i {film} -frames:v 12"

#: One of each kind: in which role it is sent, and how it is made.
SEEDS: Mapping[str, tuple[str, Callable[[Material], bytes]]] = MappingProxyType(
    {
        "h264.mp4": ("face", ffmpeg("s.mp4", f"{_HALF} -c copy -movflags +faststart")),
        "fragments.mp4": ("face", ffmpeg("s.mp4", f"{_HALF} -c copy {_FRAGMENTED}")),
        "hevc.mp4": ("face", ffmpeg("s.mp4", f"{_HALF} {_X265} -tag:v hvc1")),
        "vp9.webm": ("face", ffmpeg("s.webm", f"{_HALF} {_VPX}")),
        "h264.mkv": ("face", ffmpeg("s.mkv", f"{_HALF} -c:v libx264 -preset ultrafast -bf 2")),
        "mpeg4.mov": ("face", ffmpeg("s.mov", f"{_HALF} -c:v mpeg4 -q:v 4")),
        "face.png": ("face", ffmpeg("s.png", "-i {portrait} -update 1")),
        "face.jpg": ("face", ffmpeg("s.jpg", "-i {portrait} -update 1")),
        "face.webp": ("face", ffmpeg("s.webp", "-i {portrait} -update 1")),
        "face.bmp": ("face", ffmpeg("s.bmp", "-i {portrait} -vf scale=96:96 -update 1")),
        "voice.wav": ("voice", ffmpeg("s.wav", "-i {voice} -ar 8000")),
        "voice.mp3": ("voice", ffmpeg("s.mp3", "-i {voice} -b:a 32k")),
        "vorbis.ogg": ("voice", ffmpeg("s.ogg", "-i {voice} -c:a libvorbis")),
        "opus.webm": ("voice", ffmpeg("s.webm", "-i {voice} -c:a libopus")),
        "voice.flac": ("voice", ffmpeg("s.flac", "-i {voice}")),
        "voice.m4a": ("voice", ffmpeg("s.m4a", "-i {voice} -c:a aac")),
        "voice.aac": ("voice", ffmpeg("s.aac", "-i {voice} -c:a aac")),
        "film.mp4": ("voice", ffmpeg("s.mp4", "-i {film} -i {voice} -c:v copy")),
    }
)  # fmt: skip

#: Where formats keep what they say about themselves.
HEADER_BYTES = 2048
#: Shares of a file's bits that are flipped; from a scratch to a ruin.
FLIPPED_SHARES = (0.0001, 0.001, 0.004, 0.02)
#: Numbers that parsers get wrong: nothing, everything, and either side of a sign.
EDGES = (0, 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One damaged file."""

    name: str
    role: str
    content: bytes


def mutants(material: Material, seed: int, count: int) -> Iterator[Mutant]:
    """Yield so many damaged files, each kind in turn."""
    honest: dict[str, bytes] = {}
    for number in range(count):
        name = [*SEEDS][number % len(SEEDS)]
        chance = Random(f"{seed}-{number}")
        damage = chance.choice(DAMAGES)
        role, make = SEEDS[name]
        if name not in honest:
            honest[name] = make(material)
        content = damage(bytearray(honest[name]), chance)
        yield Mutant(f"{role}-{seed}-{number}-{damage.__name__}-{name}", role, bytes(content))


def truncated(content: bytearray, chance: Random) -> bytearray:
    return content[: chance.randrange(1, len(content))]


def flipped(content: bytearray, chance: Random) -> bytearray:
    share = chance.choice(FLIPPED_SHARES)
    for _ in range(max(1, int(len(content) * 8 * share))):
        content[chance.randrange(8, len(content))] ^= 1 << chance.randrange(8)
    return content


def header(content: bytearray, chance: Random) -> bytearray:
    """Damage what is said of the media, not the media."""
    for _ in range(chance.randrange(1, 12)):
        content[chance.randrange(8, min(len(content), HEADER_BYTES))] = chance.randrange(256)
    return content


def tail(content: bytearray, chance: Random) -> bytearray:
    """Damage the end, where some formats keep their index."""
    for _ in range(chance.randrange(1, 12)):
        content[-chance.randrange(1, min(len(content) - 8, HEADER_BYTES))] = chance.randrange(256)
    return content


def holed(content: bytearray, chance: Random) -> bytearray:
    start = chance.randrange(8, len(content))
    del content[start : start + chance.randrange(1, 4096)]
    return content


def blanked(content: bytearray, chance: Random) -> bytearray:
    start = chance.randrange(8, len(content))
    end = min(len(content), start + chance.randrange(1, 4096))
    content[start:end] = bytes(end - start)
    return content


def inserted(content: bytearray, chance: Random) -> bytearray:
    start = chance.randrange(8, len(content))
    content[start:start] = chance.randbytes(chance.randrange(1, 4096))
    return content


def doubled(content: bytearray, chance: Random) -> bytearray:
    """Repeat a part: what should be there once is there twice."""
    start = chance.randrange(len(content))
    content[start:start] = content[start : start + chance.randrange(1, 4096)]
    return content


def numbers(content: bytearray, chance: Random) -> bytearray:
    """Overwrite fields of 32 bits."""
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(8, min(len(content), HEADER_BYTES)) & ~3
        form = chance.choice((">I", "<I"))
        content[at : at + 4] = struct.pack(form, chance.choice(EDGES))
    return content


DAMAGES: tuple[Callable[[bytearray, Random], bytearray], ...] = (
    truncated, flipped, header, tail, holed, blanked, inserted, doubled, numbers,
)  # fmt: skip
