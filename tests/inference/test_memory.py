"""The worker's own memory: what a job freed is there for others."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Frees a large block, as a job's end does, then takes and frees one half its size; prints, in MiB,
#: how much of that came back.
STORY = """
import numpy as np, psutil
from inference.memory import return_freed_memory

return_freed_memory()
resident = lambda: psutil.Process().memory_info().rss / 1024**2
first = np.ones(24 * 1024**2, np.uint8)
del first
second = np.ones(12 * 1024**2, np.uint8)
held = resident()
del second
print(held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' allocators need no telling")
def test_large_blocks_go_back_to_the_system_whatever_was_freed_before() -> None:
    done = subprocess.run([sys.executable, "-c", STORY], check=True, capture_output=True, text=True)

    assert float(done.stdout) == pytest.approx(12, abs=1)
