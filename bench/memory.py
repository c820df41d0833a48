"""The peak of a process and all its children together, as resident sets."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import psutil

#: How often memory is looked at.
SAMPLE_SECONDS = 0.02
MEBIBYTE = 1024**2


def peak_mib(command: Sequence[str], env: Mapping[str, str]) -> float:
    """Run a command and return its peak in MiB; ``env`` is added to this process's own.

    Raises ``SystemExit`` if the command fails.
    """
    peak = 0
    with subprocess.Popen(
        command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            peak = max(peak, _resident_bytes(process.pid))
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit(f"This failed while its memory was measured: {' '.join(command)}")
    return peak / MEBIBYTE


def _resident_bytes(pid: int) -> int:
    """Add up what is in memory; pages of one program's files count once, however many run it."""
    own, files = 0, dict[str, int]()
    for process in _family(pid):
        with suppress(psutil.NoSuchProcess):
            name, memory = process.name(), process.memory_info()
            # Only Linux tells them apart.
            mapped = getattr(memory, "shared", 0)
            own += memory.rss - mapped
            files[name] = max(mapped, files.get(name, 0))
    return own + sum(files.values())


def _family(pid: int) -> Iterator[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        yield parent
        for child in parent.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                # Until it runs a program of its own, a child is its parent's pages once more.
                if child.cmdline() != parent.cmdline():
                    yield child
