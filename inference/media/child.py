"""Run ffmpeg and ffprobe as children that can be bounded, watched and always got rid of."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from handler.errors import ToolMissing
from inference.frame import Plane

#: Address space of a child that opens a stranger's file; decoding 4K takes about a quarter of it.
ADDRESS_SPACE_BYTES = 4 * 1024**3
#: Memory that a CUDA process may fill; ffmpeg with NVENC decodes a stranger's voice as well.
CUDA_DATA_BYTES = ADDRESS_SPACE_BYTES
#: How CUDA finds the driver's libraries, and which of the cards was given to this worker.
CUDA_VARIABLES = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
OPEN_FILES = 256
#: A child that only reads writes nothing but its complaints.
COMPLAINTS_BYTES = 16 * 1024**2
#: No video that a job asks for is as large; a disk often is.
VIDEO_BYTES = 16 * 1024**3
#: Time of a core. Ten minutes of 4K take two hours of it to decode or to encode; a child that goes
#: round in circles when nobody is left to give it up ends here.
CPU_SECONDS = 6 * 3600
#: How much of the complaints is worth repeating.
COMPLAINT_CHARACTERS = 400
#: Pipes as large as an unprivileged process may ask for: fewer wake-ups a frame.
PIPE_BYTES = 1024**2


_PATH = re.compile(r"(?:file:)?/\S+?(?=:?(?:\s|$))")


class ChildFailed(Exception):
    """A child ended badly or stopped moving; whoever started it knows what that means."""


class Child:
    """One running program, its pipes, and what it complained of."""

    def __init__(self, process: subprocess.Popen[bytes], complaints: IO[bytes]) -> None:
        self._process = process
        self._complaints = complaints

    def read_into(self, buffer: Plane, stall_seconds: float) -> int:
        """Fill a buffer from the child's output; return the bytes read, fewer only at the end.

        Raises :class:`ChildFailed` if nothing comes for ``stall_seconds``.
        """
        assert self._process.stdout is not None
        pipe, view, filled = self._process.stdout.fileno(), buffer.data.cast("B"), 0
        while filled < len(view):
            if not _ready(pipe, select.POLLIN, stall_seconds):
                raise ChildFailed(f"no data for {stall_seconds:g} s")
            count = os.readv(pipe, [view[filled:]])
            if not count:
                break
            filled += count
        return filled

    def write(self, data: Plane, stall_seconds: float) -> None:
        """Give bytes to the child.

        Raises :class:`ChildFailed` if it has gone, or takes nothing for ``stall_seconds``.
        """
        assert self._process.stdin is not None
        pipe, view = self._process.stdin.fileno(), data.data.cast("B")
        while view:
            if not _ready(pipe, select.POLLOUT, stall_seconds):
                raise ChildFailed(f"took no data for {stall_seconds:g} s")
            try:
                view = view[os.write(pipe, view) :]
            except BrokenPipeError:
                self.finish(stall_seconds)
                raise ChildFailed("ended before it had everything") from None

    def finish(self, stall_seconds: float) -> None:
        """Wait for the child's own end; raise :class:`ChildFailed` unless it ended well."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            code = self._process.wait(stall_seconds)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"did not end within {stall_seconds:g} s") from None
        if code:
            raise ChildFailed(f"exit code {code}: {self.complaint()}")

    def complaint(self) -> str:
        """Return the beginning of what the child wrote to its error output, on one line."""
        # What went wrong comes first; what follows from it, after.
        self._complaints.seek(0)
        head = self._complaints.read(COMPLAINT_CHARACTERS).decode(errors="replace")
        text = " ".join(head.split())
        # Where the worker keeps its files is nobody's business.
        return _PATH.sub("the file", text)


@contextmanager
def reading(argv: Sequence[str], *, cpu_seconds: int = CPU_SECONDS) -> Iterator[Child]:
    """Start a program whose output is read; on leaving, nothing of it is left.

    It may not write files, grow without bound, open many files or compute for ever.
    """
    bounds = _confinement(writes_bytes=COMPLAINTS_BYTES, cpu_seconds=cpu_seconds)
    with _running(argv, bounds, reads=True) as child:
        yield child


@contextmanager
def writing(argv: Sequence[str], *, cuda: bool = False) -> Iterator[Child]:
    """Start a program that is fed and writes a file; on leaving, nothing of it is left.

    One that uses ``cuda`` is bounded by the memory that it fills: CUDA reserves more address space
    than the card has memory, and fails where it may not.
    """
    passed = CUDA_VARIABLES if cuda else ()
    bounds = _confinement(writes_bytes=VIDEO_BYTES, cuda=cuda)
    with _running(argv, bounds, reads=False, passed=passed) as child:
        yield child


@contextmanager
def _running(
    argv: Sequence[str], confinement: Sequence[str], *, reads: bool, passed: Sequence[str] = ()
) -> Iterator[Child]:
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [*confinement, _program(argv[0]), *argv[1:]],
            stdin=subprocess.DEVNULL if reads else subprocess.PIPE,
            stdout=subprocess.PIPE if reads else subprocess.DEVNULL,
            stderr=complaints,
            env=_environment(passed),
            bufsize=0,
            # A group of its own, so that killing it leaves no grandchild behind.
            start_new_session=True,
        )
        try:
            _prepare_pipe(process)
            yield Child(process, complaints)
        finally:
            _end(process)


def _ready(pipe: int, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pipe, event)
    return bool(poll.poll(seconds * 1000))


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ToolMissing(
            f"{name} is not installed: install ffmpeg (apt-get install ffmpeg, brew install ffmpeg)"
        )
    return path


def _environment(passed: Sequence[str]) -> dict[str, str]:
    # Built from nothing: the worker's keys are none of a child's business.
    built = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    return built | {name: os.environ[name] for name in passed if name in os.environ}


def _confinement(
    *, writes_bytes: int, cpu_seconds: int = CPU_SECONDS, cuda: bool = False
) -> list[str]:
    """Return the words that bound a child, where the system has the program for it (Linux)."""
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        return []
    # Linux counts as data what is private and writable, not what is merely reserved (mm/mmap.c).
    memory = f"--data={CUDA_DATA_BYTES}" if cuda else f"--as={ADDRESS_SPACE_BYTES}"
    files = [f"--nofile={OPEN_FILES}", f"--fsize={writes_bytes}", "--core=0"]
    return [prlimit, memory, f"--cpu={cpu_seconds}", *files, "--"]


def _prepare_pipe(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        # Else a write would block for as long as the child pleases.
        os.set_blocking(process.stdin.fileno(), False)
    pipe = process.stdin or process.stdout
    if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        # A smaller pipe is slower, not wrong.
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
