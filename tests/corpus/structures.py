"""Files whose parts do not fit together: cut, bent, or lying about their sizes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from tests.corpus.boxes import box, overwritten
from tests.corpus.specimen import (
    MISSING,
    NO_FACE,
    SUCCESS,
    UNREADABLE,
    UNSUPPORTED,
    Attack,
    Material,
    ffmpeg,
)

#: Of the 60 that are turned in the media, few hit what decoders notice.
FLIPS = 60
DEEP = 20_000

Maker = Callable[[Material], bytes]


def cut(make: Maker, share: float) -> Maker:
    """Keep the first part of a file."""

    def made(material: Material) -> bytes:
        content = make(material)
        return content[: int(len(content) * share)]

    return made


def bent(mark: bytes, offset: int, new: bytes, make: Maker | None = None) -> Maker:
    """Overwrite bytes behind a mark in the film, or in what another maker makes."""

    def made(material: Material) -> bytes:
        content = make(material) if make else material.film.read_bytes()
        return overwritten(content, mark, offset, new)

    return made


def film(material: Material) -> bytes:
    return material.film.read_bytes()


def flipped(material: Material) -> bytes:
    """Flip bits of the media alone; the index stays whole."""
    content, chance = bytearray(material.film.read_bytes()), Random(5)
    first = content.index(b"mdat") + 4
    for _ in range(FLIPS):
        content[chance.randrange(first, len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def deep(material: Material) -> bytes:
    """Nest boxes in boxes, as deep as a parser that calls itself would go."""
    content = b""
    for _ in range(DEEP):
        content = box(b"moov", content) if len(content) < 10**6 else content
    return box(b"ftyp", b"isom\0\0\0\0isom") + content


def endless_boxes(material: Material) -> bytes:
    """Fill a file with boxes of no content."""
    return material.film.read_bytes()[:32] + box(b"free", b"") * 100_000


def endless_edits(material: Material) -> bytes:
    """Claim very many edits where there is one."""
    return overwritten(material.film.read_bytes(), b"elst", 8, struct.pack(">I", 2**31))


_MOOV_LAST = ffmpeg("last.mp4", "-i {film} -c copy")
_MKV = ffmpeg("whole.mkv", "-i {film} -c copy")
_M4A = ffmpeg("voice.m4a", "-i {voice} -c:a aac -movflags +faststart")
_FLAC = ffmpeg("voice.flac", "-i {voice}")
_JPEG = ffmpeg("portrait.jpg", "-i {portrait} -update 1")
_PNG = ffmpeg("portrait.png", "-i {portrait} -update 1")
_WEBP = ffmpeg("portrait.webp", "-i {portrait} -update 1")
_MOST = b"\x7f\xff\xff\xff"
#: A film whose index lies: clean, or refused for one of the consequences.
_CLEAN = f"{SUCCESS}|{UNREADABLE}"
_SILENT = f"{MISSING}|{UNREADABLE}"
_NO_RATE = f"{UNREADABLE}|{UNSUPPORTED}"

STRUCTURES: Mapping[str, Attack] = MappingProxyType(
    {
        "a film without its index": Attack(cut(_MOOV_LAST, 0.6), UNREADABLE, UNREADABLE),
        "a film cut at 60 percent": Attack(cut(film, 0.6), UNREADABLE, UNREADABLE),
        "a film cut at 99 percent": Attack(cut(film, 0.99), SUCCESS, MISSING),
        "a Matroska film cut at 60 percent": Attack(cut(_MKV, 0.6), UNREADABLE),
        "a voice cut at 60 percent": Attack(cut(_M4A, 0.6), voice=UNREADABLE),
        "a lossless voice cut at 60 percent": Attack(cut(_FLAC, 0.6), voice=UNREADABLE),
        "a JPEG cut at 60 percent": Attack(cut(_JPEG, 0.6), UNREADABLE),
        "a PNG cut at 60 percent": Attack(cut(_PNG, 0.6), UNREADABLE),
        "a WebP cut at 60 percent": Attack(cut(_WEBP, 0.6), UNREADABLE),
        "60 flipped bits in the media": Attack(flipped, f"{_CLEAN}|{NO_FACE}"),
        "very many sample sizes": Attack(bent(b"stsz", 12, _MOST), _CLEAN),
        "very many durations": Attack(bent(b"stts", 8, _MOST), _CLEAN),
        "a sample of two gigabytes": Attack(bent(b"stsz", 16, _MOST), _CLEAN),
        "samples far behind the end": Attack(bent(b"stco", 12, _MOST), _CLEAN),
        "a frame that lasts for years": Attack(bent(b"stts", 16, _MOST), _NO_RATE),
        "a clock that does not tick": Attack(bent(b"mdhd", 16, bytes(4)), _NO_RATE),
        "a clock that races": Attack(bent(b"mdhd", 16, b"\xff\xff\xff\xff"), _NO_RATE),
        "an index larger than the file": Attack(bent(b"moov", -4, _MOST), _CLEAN),
        "an index smaller than it is": Attack(bent(b"moov", -4, b"\0\0\0\x40"), _SILENT),
        "media larger than the file": Attack(bent(b"mdat", -4, _MOST), _CLEAN),
        "a box of negative size": Attack(bent(b"trak", -4, b"\xff\xff\xff\xff"), _CLEAN),
        "a box of no size": Attack(bent(b"stbl", -4, bytes(4)), _CLEAN),
        "boxes in boxes in boxes": Attack(deep, UNREADABLE, UNREADABLE),
        "a hundred thousand empty boxes": Attack(endless_boxes, UNREADABLE, UNREADABLE),
        "two thousand million edits": Attack(endless_edits, _CLEAN),
    }
)
