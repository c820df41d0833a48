"""Which source frame shows when face and voice differ in length (``sync_mode``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import floor

from handler.job import SyncMode


def voice_frames(seconds: float, fps: Fraction) -> int:
    """Return how many whole frames a voice lasts, at least one, as MuseTalk counts."""
    # Sound is measured in samples; undo the float's rounding before cutting to whole frames.
    return max(1, floor(Fraction(seconds).limit_denominator(10**6) * fps))


def source_frames_needed(mode: SyncMode, voice: int) -> int | None:
    """Return how many frames of the source can be shown at all; None for every one of them."""
    return None if mode in (SyncMode.SILENCE, SyncMode.REMAP) else voice


def output_frames(mode: SyncMode, voice: int, source: int) -> int:
    """Return the length of the result in frames."""
    if mode is SyncMode.CUT_OFF:
        return min(voice, source)
    if mode is SyncMode.SILENCE:
        return max(voice, source)
    return voice


def passes(mode: SyncMode, source: int, total: int) -> Iterator[Sequence[int]]:
    """Yield runs of source indices, rising or falling, that make ``total`` frames together.

    Forth and back shows both ends twice, as MuseTalk's inference script does.
    ``silence`` goes forth and back too, where the voice outlasts the video.
    """
    if mode is SyncMode.REMAP:
        yield [frame * source // total for frame in range(total)]
        return
    forth, back = range(source), range(source - 1, -1, -1)
    turn = (forth, forth) if mode is SyncMode.LOOP else (forth, back)
    shown = 0
    while shown < total:
        for indices in turn:
            if shown < total:
                yield indices[: total - shown]
                shown += min(source, total - shown)
