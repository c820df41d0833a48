"""Have the weights on their way from the disk while PyTorch is imported, which takes as long."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from inference.weights.listing import WEIGHTS, WeightsError, WeightsFile

BLOCK_BYTES = 8 * 1024**2


@contextmanager
def reading_ahead(directory: Path, listing: Sequence[WeightsFile] = WEIGHTS) -> Iterator[None]:
    """Bring the files of a directory into the system's memory while the context does other things.

    The system may drop them again, and what cannot be read here is whoever's business needs it:
    nothing but time depends on this. Plain reading, as ``posix_fadvise`` brings no more than a
    device takes at once (Linux, mm/readahead.c) and is nothing to many file systems of networks.
    """
    reader = threading.Thread(
        target=_read, args=(directory, listing), name="reading ahead", daemon=True
    )
    reader.start()
    yield
    # A snapshot that is taken after this would have it go on reading in every copy.
    reader.join()


def _read(directory: Path, listing: Sequence[WeightsFile]) -> None:
    block = bytearray(BLOCK_BYTES)
    for file in listing:
        with suppress(OSError, WeightsError):
            with (directory / file.find(directory)).open("rb", buffering=0) as source:
                while source.readinto(block):
                    pass
