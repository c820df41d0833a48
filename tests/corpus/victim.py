"""Take files as orders on lines of JSON; answer each line with what the files did to a worker.

Every line gets a fork of this process, which has run no job and has no thread yet: what files do to
one worker is not seen in the next. The process stays small, so that what a child holds in memory is
not hidden behind what its parent held: Linux counts what a process was before it became another
program, too (getrusage(2); ``exec_mmap``).
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import Studio, open_studio
from tests.corpus.specimen import Material

#: For one file; longer than any limit of the worker's own.
HANG_SECONDS = 90
GLANCE_SECONDS = 0.02
KIB_PER_MB = 1000

Order = Mapping[str, Any]


def main() -> None:
    """Serve until there is no further order."""
    place = Path(sys.argv[1])
    studio = open_studio(place, ENCODER="libx264")
    honest = Material.prepare(place)
    for line in sys.stdin:
        orders = json.loads(line)
        answer = _forked(lambda orders=orders: _work(orders, studio, honest), len(orders))
        crashed = {"crash": "the worker ended in the middle of a job, or hung"}
        sys.stdout.write(json.dumps(answer or [crashed] * len(orders)) + "\n")
        sys.stdout.flush()


def _forked(work: Callable[[], list[dict[str, Any]]], files: int) -> list[dict[str, Any]] | None:
    """Do some work in a fork; return what it returns, or None if it dies or hangs."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        with suppress(BaseException):
            os.write(writing, json.dumps(work()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        if not select.select([pipe], [], [], HANG_SECONDS * files)[0]:
            os.kill(process, signal.SIGKILL)
        answer = pipe.read()
    os.waitpid(process, 0)
    return json.loads(answer) if answer else None


def _work(orders: Sequence[Order], studio: Studio, honest: Material) -> list[dict[str, Any]]:
    """Do a job for each file in each of its roles, then an honest one."""
    done = [_try(order, studio, honest) for order in orders]
    last = studio.run(honest.film, honest.voice).to_json()
    then = last.get("error_code") or last["status"]
    return [{**outcome, "then": then} for outcome in done]


def _try(order: Order, studio: Studio, honest: Material) -> dict[str, Any]:
    path, results, seconds = Path(order["path"]), {}, {}
    with _glancing() as peak_bytes:
        for role in order["roles"]:
            files = {"face": honest.film, "voice": honest.voice} | {role: path}
            started = time.monotonic()
            result = studio.run(files["face"], files["voice"])
            results[role], seconds[role] = result.to_json(), time.monotonic() - started
    return {
        "results": results,
        "seconds": seconds,
        "child_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / KIB_PER_MB,
        "disk_mb": peak_bytes() / 1e6,
        "left": [*_files(), *_children()],
    }


@contextmanager
def _glancing() -> Iterator[Callable[[], int]]:
    """Watch how much lies in the workspaces; a file that is only linked there costs nothing."""
    most, done = [0], threading.Event()

    def glance() -> None:
        while not done.wait(GLANCE_SECONDS):
            most[0] = max(most[0], sum(_sizes()))

    watch = threading.Thread(target=glance)
    watch.start()
    try:
        yield lambda: most[0]
    finally:
        done.set()
        watch.join()


def _sizes() -> Iterator[int]:
    for file in _files():
        with suppress(OSError):
            found = Path(file).stat()
            if found.st_nlink == 1:
                yield found.st_size


def _files() -> list[str]:
    walk = os.walk(tempfile.gettempdir())
    return [f"{folder}/{name}" for folder, _, names in walk for name in names]


def _children() -> list[str]:
    """Name whoever still works on this worker's files, orphans too."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(tempfile.gettempdir() in word for word in process.cmdline()):
                found.append(process.name())
    return found


if __name__ == "__main__":
    main()
