"""What the files of a weights directory were when they were last found right.

The lock pins what is not known beforehand: the checksums of converted files, above all. It also
spares the next start from reading gigabytes: a file whose size and time are still those of its pin
has the checksum of its pin.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from inference.weights.listing import VERIFY_COMMAND, WeightsError, WeightsFile

#: The lock's name in the weights directory.
LOCK_NAME = "weights.lock.json"
NANOSECONDS = 10**9
#: No file system that we know of keeps time more coarsely: what is newer may change unseen.
COARSEST_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Pin:
    """Say what one file was, and which public commit it came or was made from.

    ``mtime_ns`` is None where the file was too new for its time to tell a later change.
    """

    sha256: str
    size_bytes: int
    mtime_ns: int | None
    repository: str
    revision: str


def read_lock(directory: Path) -> Mapping[str, Pin]:
    """Return the pins of a directory by path; none if it has no lock yet.

    Raises :class:`WeightsError` if there is a lock that cannot be read.
    """
    path = directory / LOCK_NAME
    try:
        pins = json.loads(path.read_text(encoding="utf-8"))
        return {name: Pin(**pin) for name, pin in pins.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} cannot be read ({error}): delete it and run `{VERIFY_COMMAND}`."
        ) from error


def write_lock(directory: Path, pins: Mapping[str, Pin]) -> None:
    """Write the pins of a directory in one step.

    Raises ``OSError`` if the directory cannot be written to.
    """
    text = json.dumps({name: asdict(pin) for name, pin in pins.items()}, indent=2, sort_keys=True)
    # A directory, for what is made in it is as readable as any file: others run the worker.
    with tempfile.TemporaryDirectory(prefix=".lock-", dir=directory) as place:
        part = Path(place) / LOCK_NAME
        part.write_text(f"{text}\n", encoding="utf-8")
        part.replace(directory / LOCK_NAME)


def pin(path: Path, file: WeightsFile, known: Pin | None = None) -> Pin:
    """Return a pin of what lies at a path, reading it whole unless ``known`` still holds.

    Raises :class:`WeightsError` if it cannot be read.
    """
    try:
        # Looked at before it is read: a change meanwhile then shows in the file's time.
        now = path.stat()
        if known and (known.size_bytes, known.mtime_ns) == (now.st_size, now.st_mtime_ns):
            return known
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"The weights cannot be read: {error}.") from error
    settled = time.time_ns() - now.st_mtime_ns > COARSEST_SECONDS * NANOSECONDS
    mtime_ns = now.st_mtime_ns if settled else None
    return Pin(digest, now.st_size, mtime_ns, file.repository, file.revision)


def settle(path: Path) -> None:
    """Date a new file back, so that its time tells any later change.

    To a whole second, for the layers of a container image keep no less.
    """
    past_ns = (int(time.time()) - COARSEST_SECONDS - 1) * NANOSECONDS
    os.utime(path, ns=(past_ns, past_ns))
