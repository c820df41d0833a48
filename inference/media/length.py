"""How long a file says it is, which tells whether all of it arrived; no decoder is needed for that.

A film whose end is missing would else pass wherever its beginning is enough for the voice.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from handler.errors import MediaUnreadable
from inference.media.limits import LEAST_SHARE_OF_DECLARED

#: Boxes of MP4 and MOV that are nearly all of a file (ISO/IEC 14496-12, 8.1 and 8.2).
_LARGE_BOXES = frozenset({b"mdat", b"moov"})
#: No film has as many beside each other; a list without end is no film.
MAX_BOXES = 10_000
#: What a Matroska file begins with, and the element that holds the rest (RFC 8794, RFC 9559).
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def check_whole(path: Path) -> None:
    """Raise :class:`MediaUnreadable` if less than nine tenths of a film's file are there.

    Nothing is said of files that do not tell how long they are.
    """
    held = path.stat().st_size
    with path.open("rb") as file:
        begins = file.read(4)
        declared = _segment_end(file) if begins == _EBML else _last_box_end(file, held)
    if held < LEAST_SHARE_OF_DECLARED * declared:
        raise MediaUnreadable(
            f"The file is cut off: it declares {declared} bytes and holds {held}. Upload it again."
        )


def _last_box_end(file: BinaryIO, held: int) -> int:
    """Return the end of the last large box of MP4 that begins within the file; 0 without any."""
    at = end = 0
    for _ in range(MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if kind in _LARGE_BOXES:
            end = at + size
        # Zero is "up to the end", and what is smaller than its own header is no box.
        at += size
        if size < len(head[:8]) or not kind.isalnum() or at >= held:
            break
    return end


def _segment_end(file: BinaryIO) -> int:
    """Return the end of a Matroska file's only segment; 0 if it was not known when it was begun."""
    head = _number(file)
    file.seek(head or 0, 1)
    if head is None or file.read(4) != _SEGMENT:
        return 0
    size = _number(file)
    return 0 if size is None else file.tell() + size


def _number(file: BinaryIO) -> int | None:
    """Read a number of variable length; None if all its bits are set, which is "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    bits = 7 * (9 - first[0].bit_length())
    rest = file.read(8 - first[0].bit_length())
    value = int.from_bytes(first + rest, "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value
