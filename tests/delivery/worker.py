"""A worker whose engine is a fake and whose delivery is real; as a program it meets its end.

``python -m tests.delivery.worker URL DIRECTORY MOMENT`` does a job and has itself killed when it
enters a stage of that name, or, at ``completed``, when it has told of its success.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from adapters.journal import DiskJournal
from adapters.transfer.bucket import Bucket, s3_client
from adapters.transfer.local import DirectoryRecords, DirectoryStore
from adapters.transfer.records import S3Records
from adapters.transfer.retry import Retry
from adapters.transfer.store import S3Store
from adapters.workspace import Workspaces
from handler import Progress, Runtime, Stage, handle
from handler.fingerprint import fingerprint
from handler.ports import Clip, Note, Scene
from handler.progress import Tick
from handler.result import Output, Worker
from handler.testing import FAKE_FILES, FakeAvatar, FakeEngine, FakeFetch, FakeProbe, fake_runtime
from tests.delivery.service import BUCKET, PREFIX, REGION

JOB = {"musetalk_job_id": "job-7"} | dict(zip(("video_url", "audio_url"), FAKE_FILES, strict=True))
#: The same id, another face.
OTHER_JOB = JOB | {"video_url": "https://example.com/other.mp4"}

#: The least that S3 takes for a part that is not the last.
PART_BYTES = 5 * 1024**2

#: Builds workers that share one place for their videos, each without a memory of its own.
Make = Callable[..., Runtime]

identify = partial(fingerprint, engine="fake", weights=None)


class TakeEngine(FakeEngine):
    """Films no two takes with the same bytes, as a GPU may, and counts them."""

    def __init__(self, size_bytes: int = 100) -> None:
        super().__init__()
        self.takes = 0
        self._size_bytes = size_bytes

    def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        clip = super().animate(avatar, scene, target, tick)
        self.takes += 1
        take = f"{self.frames};{uuid.uuid4()};{scene.job.video_url}".encode()
        target.write_bytes(take.ljust(self._size_bytes, b"."))
        return clip


class TakeProbe(FakeProbe):
    """Reads what such an engine wrote."""

    def output(self, path: Path) -> Output:
        content = path.read_bytes()
        plain = path.with_suffix(".frames")
        plain.write_bytes(content.partition(b";")[0])
        seen = super().output(plain)
        return seen.holding(len(content), hashlib.sha256(content).hexdigest())


def runtime_of(**ports: Any) -> Runtime:
    """Build a worker with a name of its own."""
    files = FAKE_FILES | {OTHER_JOB["video_url"]: b"another face"}
    worker = Worker(version="0", engine="fake", worker_id=f"{uuid.uuid4()}")
    plain = fake_runtime(fetch=FakeFetch(files), engine=TakeEngine(), probe=TakeProbe())
    return replace(plain, **({"worker": worker} | ports))


#: A client takes long to make.
_client = cache(partial(s3_client, region=REGION, key_id="key-id", key_secret="key-secret"))


def bucket_runtime(url: str, **ports: Any) -> Runtime:
    """Build a worker that delivers into a bucket."""
    bucket = Bucket(_client(url), BUCKET, PREFIX, retry=Retry(sleep=lambda _: None))
    records = S3Records(bucket)
    store = S3Store(bucket, records, identify, part_bytes=PART_BYTES)
    return runtime_of(**({"store": store, "records": records} | ports))


def directory_runtime(directory: Path, **ports: Any) -> Runtime:
    """Build a worker that delivers into a directory."""
    store, records = DirectoryStore(directory), DirectoryRecords(directory)
    return runtime_of(**({"store": store, "records": records} | ports))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(url: str, directory: Path, moment: str) -> None:
    journal = DiskJournal(directory / "journal")

    @contextmanager
    def doomed(job_id: str) -> Iterator[Note]:
        with journal(job_id) as note:

            def note_and_die(stage: Stage) -> None:
                note(stage)
                if stage.value == moment:
                    _die()

            yield note_and_die

    def report(progress: Progress) -> None:
        if progress.phase.value == moment:
            _die()

    runtime = bucket_runtime(
        url,
        engine=TakeEngine(2 * PART_BYTES),
        journal=doomed,
        workspace=Workspaces(directory / "jobs"),
    )
    handle(JOB, runtime, report)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
