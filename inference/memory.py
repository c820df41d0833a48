"""Give memory back once it is not needed: a worker lives long and its frames are large."""

from __future__ import annotations

import ctypes
import sys

#: glibc's ``M_MMAP_THRESHOLD`` and ``M_TRIM_THRESHOLD`` (mallopt(3)).
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
#: What is larger is mapped on its own, and unmapped when it is freed: batches and features, but no
#: frames of up to 720p, which come and go too often for that.
LARGE_BYTES = 1024**2


def return_freed_memory() -> None:
    """Keep glibc from raising its thresholds; other systems need no telling.

    It raises them to the largest block that was ever freed, and then keeps frames and tensors of
    each thread for later: a third more memory, which grows for the first minute of a job.
    """
    if sys.platform != "linux":
        return
    # Other C libraries have no such thresholds.
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(MMAP_THRESHOLD, LARGE_BYTES)
        tune(TRIM_THRESHOLD, LARGE_BYTES)
