"""Whether the files of a weights directory are what they should be, and what they are together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from inference.weights.listing import (
    FETCH_COMMAND,
    VERIFY_COMMAND,
    WEIGHTS,
    WeightsError,
    WeightsFile,
)
from inference.weights.lock import Pin, pin, read_lock, write_lock

#: What the files are, before what they are exactly.
FAMILY = "musetalk-1.5"
#: So many hexadecimal digits tell one set of files from another.
IDENTITY_DIGITS = 12


class Verdict(StrEnum):
    """Say how one file stands."""

    OK = "ok"
    MISSING = "missing"
    WRONG_SIZE = "wrong size"
    WRONG_CHECKSUM = "wrong checksum"
    #: Neither the listing nor the lock knows it.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """Say how one file stands, and what it is; ``pin`` is None where that was not looked at."""

    file: WeightsFile
    path: str
    verdict: Verdict
    pin: Pin | None = None

    @property
    def usable(self) -> bool:
        """Tell whether nothing speaks against the file."""
        return self.verdict in {Verdict.OK, Verdict.UNKNOWN}

    @property
    def published(self) -> bool:
        """Tell whether the file is as published, so that it can be fetched again."""
        return self.path == self.file.path


def verify_weights(
    directory: Path, listing: Sequence[WeightsFile] = WEIGHTS, *, thorough: bool = True
) -> Sequence[Finding]:
    """Return a finding on each file of the listing; nothing is written.

    Every file is read whole, or, if not ``thorough``, only where the lock does not know it.
    Raises :class:`WeightsError` if the lock or a file cannot be read.
    """
    pins = read_lock(directory)

    def look(file: WeightsFile) -> Finding:
        path = file.present(directory)
        if path is None:
            return Finding(file, file.path, Verdict.MISSING)
        return judge(directory / path, file, path, pins.get(path), thorough=thorough)

    with ThreadPoolExecutor(len(listing)) as threads:
        return list(threads.map(look, listing))


def judge(
    place: Path, file: WeightsFile, path: str, known: Pin | None, *, thorough: bool = True
) -> Finding:
    """Return how what lies at ``place`` would do as a file's ``path`` in a weights directory."""
    size_bytes, sha256 = _expected(file, path, known)
    if size_bytes not in {None, place.stat().st_size}:
        return Finding(file, path, Verdict.WRONG_SIZE)
    found = pin(place, file, None if thorough else known)
    if sha256 is None:
        return Finding(file, path, Verdict.UNKNOWN, found)
    verdict = Verdict.OK if found.sha256 == sha256 else Verdict.WRONG_CHECKSUM
    return Finding(file, path, verdict, found)


def _expected(file: WeightsFile, path: str, known: Pin | None) -> tuple[int | None, str | None]:
    """Return the size and the checksum that a file should have: what is public, else its pin's."""
    if path == file.path and file.sha256 is not None:
        return file.size_bytes, file.sha256
    return (known.size_bytes, known.sha256) if known else (None, None)


def pin_findings(directory: Path, findings: Sequence[Finding]) -> None:
    """Write what was found usable into the lock, if that is news, and leave the rest as it is.

    Raises ``OSError`` if the directory cannot be written to.
    """
    old = read_lock(directory)
    new = {found.path: found.pin for found in findings if found.usable and found.pin}
    if old != {**old, **new}:
        write_lock(directory, {**old, **new})


def weights_identity(directory: Path, listing: Sequence[WeightsFile] = WEIGHTS) -> str:
    """Return a name that changes when a byte of the weights in use does.

    Where a file's size and time are those in the lock, its checksum is taken from there; the lock
    is never written, for what is found is not thereby right. Raises :class:`WeightsMissing` for
    the first file that is not there, :class:`WeightsError` if one is not what the lock says, or
    the lock cannot be read.
    """
    pins = read_lock(directory)

    def line(file: WeightsFile) -> str:
        path = file.find(directory)
        known = pins.get(path)
        found = pin(directory / path, file, known)
        if known is not None and found.sha256 != known.sha256:
            raise WeightsError(
                f"{directory / path} is not the file it was when it was pinned:"
                f" `{VERIFY_COMMAND}` tells what is wrong, `{FETCH_COMMAND}` mends."
            )
        return f"{found.sha256}  {path}\n"

    with ThreadPoolExecutor(len(listing)) as threads:
        lines = "".join(threads.map(line, listing))
    return f"{FAMILY} {hashlib.sha256(lines.encode()).hexdigest()[:IDENTITY_DIGITS]}"
