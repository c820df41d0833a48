"""A worker in its every day: hundreds of jobs, a fifth of them bad, and nothing may grow.

Run by `make soak`; exit code 1 if anything grew. `JOBS=1000 make soak` takes longer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from tests import clips
from tests.drive_http import HttpDriver, WorkerProcess, worker_process

ASSETS = Path(__file__).parents[1] / "assets"
#: After so many jobs everything that is kept for good is there.
SETTLED_JOBS = 20
FAULTY_SHARE = 0.2
JOBS_AT_ONCE = 2
#: Seconds of voice: short, for it is the number of jobs that counts.
VOICE_SECONDS = "0.6"


@dataclass(frozen=True)
class Footprint:
    """What a worker and its children hold."""

    memory_mib: float
    descriptors: int
    threads: int
    processes: int
    files: int

    def grown_from(self, before: Footprint) -> list[str]:
        """Return what is more than noise above what it was."""
        memory_mib = 0.1 * before.memory_mib + 16
        noise = {
            "memory_mib": memory_mib,
            "descriptors": 4,
            "threads": 3,
            "processes": 0,
            "files": 0,
        }
        now, then = asdict(self), asdict(before)
        grown = (name for name in noise if now[name] > then[name] + noise[name])
        return [f"{name}: {then[name]:g} -> {now[name]:g}" for name in grown]


def footprint(worker: WorkerProcess, scratch: Path) -> Footprint:
    """Measure a worker that has nothing to do."""
    parent = psutil.Process(worker.process.pid)
    family = [parent, *parent.children(recursive=True)]
    return Footprint(
        memory_mib=sum(each.memory_info().rss for each in family) / 1024**2,
        descriptors=sum(each.num_fds() for each in family),
        threads=sum(each.num_threads() for each in family),
        processes=len(family),
        files=sum(1 for path in scratch.rglob("*") if path.is_file()),
    )


class Shop:
    """Hands out jobs, good and bad, over one worker's HTTP door."""

    def __init__(self, worker: WorkerProcess, media: str, seed: int) -> None:
        self._worker = worker
        self._driver: HttpDriver = worker.driver
        self._media = media
        self._chance = random.Random(seed)
        self.ends: Counter[str] = Counter()
        self._faults: list[Callable[[], str]] = [
            partial(self._film, video="gone.mp4"),
            partial(self._film, video="text.mp4"),
            partial(self._film, video="cut.mp4"),
            partial(self._film, video="faceless.mp4"),
            partial(self._film, audio="text.mp4"),
            partial(self._film, audio="face.mp4"),
            partial(self._film, video_url="https://169.254.169.254/face.mp4"),
            partial(self._film, deadline_seconds="soon"),
            partial(self._film, colour="green"),
            self._take_back,
            self._kill_the_engine,
        ]

    def serve(self, jobs: int) -> None:
        """Have so many jobs done, two at a time."""
        orders = [self._order() for _ in range(jobs)]
        with ThreadPoolExecutor(JOBS_AT_ONCE) as callers:
            self.ends.update(callers.map(lambda order: order(), orders))

    def _order(self) -> Callable[[], str]:
        faulty = self._chance.random() < FAULTY_SHARE
        return self._chance.choice(self._faults) if faulty else self._film

    def _job(self, video: str = "face.mp4", audio: str = "voice.wav", **more: Any) -> Any:
        urls = {"video_url": f"{self._media}/{video}", "audio_url": f"{self._media}/{audio}"}
        return {**urls, "sync_mode": "cut_off", **more}

    def _film(self, **fields: Any) -> str:
        body = self._driver.generate(self._job(**fields)).body
        return body.get("error_code") or "success"

    def _take_back(self) -> str:
        job_id = self._driver.submit(self._job())
        self._driver.cancel(job_id)
        return self._driver.wait(job_id).get("error_code") or "success"

    def _kill_the_engine(self) -> str:
        """Kill what the worker has started meanwhile: its engine, or an ffmpeg at work."""
        children = psutil.Process(self._worker.process.pid).children(recursive=True)
        with suppress(psutil.NoSuchProcess):
            if children:
                self._chance.choice(children).send_signal(signal.SIGKILL)
        return self._film()


@contextmanager
def media(place: Path) -> Iterator[str]:
    """Serve a face, a voice, and what only looks like them."""
    face = (ASSETS / "face.mp4").read_bytes()
    (place / "face.mp4").write_bytes(face)
    (place / "cut.mp4").write_bytes(face[: len(face) // 2])
    (place / "text.mp4").write_text("This is no film.\n" * 100)
    clips.run_ffmpeg("-i", f"{ASSETS / 'voice.wav'}", "-t", VOICE_SECONDS, f"{place / 'voice.wav'}")
    clips.run_ffmpeg("-f", "lavfi", "-i", "testsrc=d=1:s=320x240:r=25", f"{place / 'faceless.mp4'}")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=f"{place}"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> int:
    """Serve all jobs and compare."""
    jobs, seed = int(os.environ.get("JOBS", "300")), int(os.environ.get("SEED", "1"))
    with tempfile.TemporaryDirectory() as name:
        root, scratch, shelf = (Path(name, part) for part in ("worker", "scratch", "media"))
        scratch.mkdir()
        shelf.mkdir()
        env = {
            "MUSETALK_ENGINE": "preview",
            "OUTPUT_DIR": f"{root / 'out'}",
            "AVATAR_CACHE_DIR": f"{root / 'avatars'}",
            "TMPDIR": f"{scratch}",
            "ALLOW_HTTP": "true",
            "ALLOW_PRIVATE_HOSTS": "127.0.0.1",
        }
        with media(shelf) as url, worker_process(**env) as worker:
            worker.await_log("ready")
            # Nobody reads the log of this worker, but somebody must take it.
            threading.Thread(target=worker.process.stderr.read, daemon=True).start()
            shop = Shop(worker, url, seed)
            shop.serve(SETTLED_JOBS)
            before = footprint(worker, scratch)
            shop.serve(jobs - SETTLED_JOBS)
            after = footprint(worker, scratch)
            health = worker.driver.ask("GET", "/hc").body
    print(json.dumps({"seed": seed, "ends": shop.ends, "health": health}, indent=2))
    print(f"after {SETTLED_JOBS} jobs: {before}\nafter {jobs} jobs: {after}")
    grown = after.grown_from(before)
    print("\n".join(["grown:", *grown]) if grown else "nothing grew")
    return 1 if grown or health != {"status": "ok"} else 0


if __name__ == "__main__":
    sys.exit(main())
