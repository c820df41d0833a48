"""What holds the programs that open strangers' files: one of them is asked, not the manual."""

from __future__ import annotations

import shutil
from enum import StrEnum

import numpy as np

from inference.media.child import (
    ADDRESS_SPACE_BYTES,
    COMPLAINTS_BYTES,
    CPU_SECONDS,
    OPEN_FILES,
    reading,
)

#: As a child that reads is to be bounded, in the words of prlimit (util-linux).
BOUNDS = {
    "AS": ADDRESS_SPACE_BYTES,
    "CORE": 0,
    "CPU": CPU_SECONDS,
    "FSIZE": COMPLAINTS_BYTES,
    "NOFILE": OPEN_FILES,
}
QUESTION = ("prlimit", "--raw", "--noheadings", "--output=RESOURCE,HARD")
#: More than a table of sixteen numbers.
TABLE_BYTES = 4096
#: It takes milliseconds, but for images whose files come only as they are opened.
PATIENCE_SECONDS = 60


class Isolation(StrEnum):
    """Name what holds children beside whitelists, an empty environment and a process group."""

    #: Limits of memory, time, files and their size, which they cannot raise.
    RLIMIT = "rlimit"
    #: Nothing: those three need nobody's leave, and are always there.
    NONE = "none"


def probe_isolation() -> Isolation:
    """Start a child as ffmpeg is started, and have it tell what it is held by.

    Raises :class:`ChildFailed` if it cannot be started so: then no job can be done either.
    """
    if shutil.which(QUESTION[0]) is None:
        return Isolation.NONE
    table = np.empty(TABLE_BYTES, np.uint8)
    with reading(QUESTION) as child:
        size = child.read_into(table, PATIENCE_SECONDS)
        child.finish(PATIENCE_SECONDS)
    rows = (row.split() for row in table[:size].tobytes().decode(errors="replace").splitlines())
    found = {row[0]: row[-1] for row in rows if row}
    held = all(found.get(name) == str(bound) for name, bound in BOUNDS.items())
    return Isolation.RLIMIT if held else Isolation.NONE
