"""Media of an accepted kind that has the wrong parts, too little of them, or too much to say."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.corpus.bombs import png, wav
from tests.corpus.boxes import overwritten
from tests.corpus.specimen import (
    EMPTY,
    MISSING,
    NO_FACE,
    SUCCESS,
    UNREADABLE,
    UNSUPPORTED,
    Attack,
    Material,
    ffmpeg,
    literal,
)

#: Longer than any line that somebody reads, and as long as a tag may be in a film of a few frames.
LONG_TAG = 10**6
_ORDERS = "'; touch executed; $(touch executed) `touch executed` | touch executed\n\r\0343 %n%s"


def told(name: str, title: str, source: str = "film") -> Callable[[Material], bytes]:
    """Make a film or a voice that says something about itself."""

    def made(material: Material) -> bytes:
        notes = material.place / "notes.txt"
        said = title.replace("\\", "\\\\")
        for special in "=;#\n":
            said = said.replace(special, f"\\{special}")
        notes.write_text(f";FFMETADATA1\ntitle={said}\nartist={said}\n", encoding="utf-8")
        copied = "-c copy" if source == "film" else ""
        words = f"-i {{{source}}} -i {{0}} -map 0 -map_metadata 1 {copied}"
        return material.made(name, words, notes)

    return made


def sung(cover: bytes) -> Callable[[Material], bytes]:
    """Make a song with a picture on its cover."""

    def made(material: Material) -> bytes:
        picture = material.place / "cover.png"
        picture.write_bytes(cover)
        words = "-i {voice} -i {0} -map 0 -map 1 -c:v copy -disposition:v:0 attached_pic"
        return material.made("song.mp3", words, picture)

    return made


def no_numbers(material: Material) -> bytes:
    """Record in floating point what is none."""
    samples = struct.pack("<f", float("nan")) * 8000
    head = overwritten(wav(16_000, 1, 8000, bits=32), b"fmt ", 8, struct.pack("<H", 3))
    return overwritten(head, b"data", 8, samples)


def subtitled(material: Material) -> bytes:
    lines = material.place / "lines.srt"
    lines.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n", encoding="utf-8")
    return material.made("lines.mkv", "-i {0} -c:s srt", lines)


def mistaken(material: Material) -> bytes:
    """Make a Matroska film whose note on its length is no length."""
    content = material.made("note.mkv", "-i {film} -c copy")
    return overwritten(content, b"00:00:01.", 0, b"about a second, no")


ODDITIES: Mapping[str, Attack] = MappingProxyType(
    {
        "a voice alone": Attack(ffmpeg("a.m4a", "-i {voice}"), MISSING, SUCCESS),
        "a picture alone": Attack(ffmpeg("a.mp4", "-i {film} -c copy"), SUCCESS, MISSING),
        "a film and a voice": Attack(
            ffmpeg("a.mp4", "-i {film} -i {voice} -c:v copy"), SUCCESS, SUCCESS
        ),
        "a song with a cover": Attack(sung(png(64, 64)), MISSING, SUCCESS),
        "a song with a huge cover": Attack(
            sung(png(12_000, 12_000)), MISSING, f"{SUCCESS}|{UNREADABLE}"
        ),
        "subtitles alone": Attack(subtitled, MISSING, MISSING),
        "two by two pixels": Attack(
            ffmpeg("a.mp4", "-f lavfi -i color=gray:s=2x2:r=25 -t 1"), UNSUPPORTED
        ),
        "one frame": Attack(ffmpeg("a.mp4", "-i {film} -frames:v 1 -c copy"), UNSUPPORTED),
        "one frame in Matroska": Attack(
            ffmpeg("a.mkv", "-i {film} -frames:v 1 -c copy"), UNSUPPORTED
        ),
        "a film of no frames": Attack(
            ffmpeg("a.mp4", "-i {film} -t 0 -c copy"),
            f"{UNREADABLE}|{MISSING}",
            f"{UNREADABLE}|{MISSING}",
        ),
        "ten milliseconds": Attack(literal(wav(16_000, 1, 160)), voice=UNSUPPORTED),
        "one sample": Attack(literal(wav(16_000, 1, 1)), voice=UNSUPPORTED),
        "no samples": Attack(literal(wav(16_000, 1, 0)), voice=EMPTY),
        "silence": Attack(literal(wav(16_000, 1, 8000)), voice=SUCCESS),
        "silence compressed": Attack(
            ffmpeg("a.mp3", "-f lavfi -i anullsrc -t 1"), MISSING, SUCCESS
        ),
        "a voice of no numbers": Attack(no_numbers, voice=UNREADABLE),
        "a lying length": Attack(
            lambda _: overwritten(wav(16_000, 1, 8000), b"data", 4, b"\xf0\xff\xff\xff"),
            voice=SUCCESS,
        ),
        "a grey wall": Attack(
            ffmpeg("a.mp4", "-f lavfi -i color=gray:s=128x128:r=25 -t 1"), NO_FACE
        ),
        "a title of orders": Attack(told("a.mp4", _ORDERS), SUCCESS),
        "a Matroska title of orders": Attack(told("a.mkv", _ORDERS), SUCCESS),
        "a spoken title of orders": Attack(told("a.mp3", _ORDERS, "voice"), voice=SUCCESS),
        "a title of a megabyte": Attack(told("a.mp4", "T" * LONG_TAG), SUCCESS),
        "a Matroska title of a megabyte": Attack(told("a.mkv", "\1" * LONG_TAG), SUCCESS),
        "a spoken title of a megabyte": Attack(
            told("a.flac", "\1" * LONG_TAG, "voice"), MISSING, SUCCESS
        ),
        "a length that is no length": Attack(mistaken, SUCCESS),
    }
)
