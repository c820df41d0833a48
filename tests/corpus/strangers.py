"""Files that are no media, that are media of no use, and that are two things at once."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Mapping
from random import Random
from types import MappingProxyType

from tests.corpus.boxes import box
from tests.corpus.specimen import (
    SUCCESS,
    UNREADABLE,
    UNSUPPORTED,
    Attack,
    Material,
    literal,
    text,
)

_REFUSED = f"{UNSUPPORTED}|{UNREADABLE}"
_PAGE = "<!doctype html><title>404 Not Found</title><script>fetch('/')</script>" * 20
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><rect width="9"/></svg>'
_EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(ls) (w) file\nshowpage\n"


def _nothing(content: bytes | str) -> Attack:
    return Attack(literal(content), _REFUSED, _REFUSED)


def _zip(name: str, content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, content)
    return archive.getvalue()


def _tiff() -> bytes:
    entries = [(0x100, 64), (0x101, 64), (0x103, 1), (0x111, 8), (0x117, 512)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(516)


def film_and_page(material: Material) -> bytes:
    """A film that a browser could take for a page."""
    return material.film.read_bytes() + box(b"free", _PAGE.encode())


def film_and_archive(material: Material) -> bytes:
    return material.film.read_bytes() + _zip("a.sh", b"#!/bin/sh\n")


def portrait_and_archive(material: Material) -> bytes:
    return material.portrait.read_bytes() + _zip("a.sh", b"#!/bin/sh\n")


def portrait_and_playlist(material: Material) -> bytes:
    return material.portrait.read_bytes() + f"\n#EXTM3U\n{material.canary}/a.ts\n".encode()


def packed_film(material: Material) -> bytes:
    return gzip.compress(material.film.read_bytes(), mtime=0)


STRANGERS: Mapping[str, Attack] = MappingProxyType(
    {
        "nothing": _nothing(b""),
        "one byte": _nothing(b"\0"),
        "a megabyte of zeros": _nothing(bytes(10**6)),
        "a web page": _nothing(_PAGE),
        "noise": _nothing(Random(1).randbytes(200_000)),
        "a letter": _nothing("Dear worker,\nplease find attached nothing at all.\n" * 50),
        "an answer in JSON": _nothing(
            '{"error": "AccessDenied", "message": "Request has expired"}'
        ),
        "an answer in XML": _nothing('<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>'),
        "an entity that grows": _nothing(
            '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><l>&b;</l>'
        ),
        "a shell script": _nothing("#!/bin/sh\ntouch /tmp/executed\n"),
        "a program": _nothing(b"\x7fELF\x02\x01\x01" + bytes(4000)),
        "a document": _nothing("%PDF-1.7\n1 0 obj\n<</Type/Catalog>>\nendobj\n"),
        "an archive": _nothing(_zip("film.mp4", b"film")),
        "a packed film": Attack(packed_film, _REFUSED, _REFUSED),
        "subtitles": _nothing("WEBVTT\n\n00:00.000 --> 00:01.000\n<c.a>hello\n"),
        "notes": _nothing(";FFMETADATA1\ntitle=notes\n"),
        "an animated picture": _nothing(b"GIF89a\x40\0\x40\0\x80\0\0" + bytes(6) + b",;" * 40),
        "a drawing": _nothing(_SVG),
        "a drawing for printers": _nothing(_EPS),
        "a scan": _nothing(_tiff()),
        "an icon": _nothing(b"\0\0\1\0\1\0\x40\x40\0\0\1\0\x20\0" + bytes(400)),
        "a layered picture": _nothing(b"8BPS\0\1" + bytes(400)),
        "a photograph of another kind": _nothing(
            box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(200))
        ),
        "a tag before a playlist": Attack(
            text("ID3\x03\0\0\0\0\0\x0a0123456789#EXTM3U\n{canary}/a.mp3\n"), _REFUSED, _REFUSED
        ),
        "a brand before a playlist": Attack(
            text("\0\0\0\x18ftypisom\0\0\0\0isom\0\0\0\0#EXTM3U\n#EXTINF:1,\n{canary}/a.ts\n"),
            _REFUSED,
            _REFUSED,
        ),
        "the beginning of a photograph before a page": Attack(
            literal(b"\xff\xd8\xff\xe0\0\x10JFIF\0" + _PAGE.encode()), UNREADABLE
        ),
        "a sound's beginning before a page": _nothing(b"RIFF\x40\0\0\0WAVE" + _PAGE.encode()),
        "a film that is a page": Attack(film_and_page, SUCCESS),
        "a film that is an archive": Attack(film_and_archive, SUCCESS),
        "a portrait that is an archive": Attack(portrait_and_archive, SUCCESS),
        "a portrait that is a playlist": Attack(portrait_and_playlist, SUCCESS),
    }
)
