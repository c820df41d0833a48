"""What the installed ffmpeg can do."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from inference.media.child import reading

#: Longest list that ffmpeg prints of what it can do.
LIST_BYTES = 1024**2
#: It takes a moment, but for images whose files come only as they are opened.
PATIENCE_SECONDS = 60

NEEDED_ENCODERS = frozenset({"libx264", "aac"})
#: Phones, browsers and recorders write these; the other accepted codecs are rare.
NEEDED_DECODERS = frozenset({"h264", "hevc", "vp8", "vp9", "aac", "mp3", "opus", "vorbis", "png"})


def ffmpeg_version() -> str:
    """Return the version of ffmpeg; raise :class:`ToolMissing` if there is none."""
    words = _ask("-version").split()
    return words[2] if words[:2] == ["ffmpeg", "version"] else "unknown"


def missing_codecs() -> Sequence[str]:
    """Return what ffmpeg lacks of the codecs that a worker cannot do without."""
    encoders, decoders = _names("-encoders"), _names("-decoders")
    return sorted((NEEDED_ENCODERS - encoders) | (NEEDED_DECODERS - decoders))


def _names(question: str) -> frozenset[str]:
    return frozenset(re.findall(r"^ [VAS]\S{5} (\S+)", _ask(question), re.MULTILINE))


def _ask(question: str) -> str:
    answer = np.empty(LIST_BYTES, np.uint8)
    with reading(["ffmpeg", "-hide_banner", question]) as child:
        size = child.read_into(answer, PATIENCE_SECONDS)
        child.finish(PATIENCE_SECONDS)
    return answer[:size].tobytes().decode(errors="replace")
