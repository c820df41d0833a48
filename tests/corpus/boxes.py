"""Build and rebuild the boxes of MP4 files (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

import struct

#: Boxes that hold boxes, as far as damage to them is of interest.
CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts", b"udta")


def box(kind: bytes, content: bytes) -> bytes:
    """Return a box."""
    return struct.pack(">I", 8 + len(content)) + kind + content


def offset_of(content: bytes, kind: bytes) -> int:
    """Return where the first box of a kind begins."""
    return content.index(kind) - 4


def replaced(content: bytes, kind: bytes, entry: bytes) -> bytes:
    """Put another box in the place of the first of a kind; all boxes around it fit again.

    Samples must lie behind the index: they move, and the index says so.
    """
    start = offset_of(content, kind)
    size = int.from_bytes(content[start : start + 4], "big")
    grown = len(entry) - size
    changed = bytearray(content[:start] + entry + content[start + size :])
    at = 0
    while at < start:
        size = int.from_bytes(content[at : at + 4], "big")
        if at + size <= start:
            at += size
            continue
        changed[at : at + 4] = (size + grown).to_bytes(4, "big")
        at += {b"dref": 16, b"stsd": 16}.get(content[at + 4 : at + 8], 8)
    return _moved(changed, grown)


def _moved(content: bytearray, by: int) -> bytes:
    at = content.index(b"stco") + 8
    count = int.from_bytes(content[at : at + 4], "big")
    for entry in range(at + 4, at + 4 + 4 * count, 4):
        offset = int.from_bytes(content[entry : entry + 4], "big") + by
        content[entry : entry + 4] = offset.to_bytes(4, "big")
    return bytes(content)


def overwritten(content: bytes, mark: bytes, offset: int, new: bytes) -> bytes:
    """Return a copy with other bytes at an offset behind the first occurrence of a mark."""
    at = content.index(mark) + offset
    return content[:at] + new + content[at + len(new) :]
