"""Whole jobs, ``handle()`` and all, by a worker of this process that keeps to a directory."""

from __future__ import annotations

import shutil
import time
import uuid
from pathlib import Path
from typing import Any, Self

from adapters.transfer.local import DirectoryStore, LocalFetch
from adapters.workspace import Workspaces
from bench.footage import Footage
from handler import Runtime, Success, handle
from handler.result import Worker
from handler.testing import FakeFetch, MemoryWebhooks
from inference.avatar_cache import AvatarCache
from inference.engine import LipSync
from inference.media.encoder import choose_encoder
from inference.media.limits import Limits
from inference.media.probe import FfprobeGate
from inference.memory import return_freed_memory
from inference.parts import Parts

CACHE_BYTES = 1024**3
TIMEOUT_SECONDS = 3600.0
FACES = "faces"


class Studio:
    """A worker with some engine; it remembers faces until it is told to forget."""

    def __init__(self, runtime: Runtime, scratch: Path) -> None:
        """Run jobs by a runtime that keeps its faces below ``scratch``."""
        self._runtime = runtime
        self._faces = scratch / FACES

    @classmethod
    def bare(cls, parts: Parts, scratch: Path) -> Self:
        """Do no more than a job needs."""
        # As at a worker's start.
        return_freed_memory()
        limits = Limits()
        cache, encoder = AvatarCache(scratch / FACES, CACHE_BYTES), choose_encoder(None, limits)
        runtime = Runtime(
            engine=LipSync(parts, cache, limits, encoder),
            fetch=LocalFetch(FakeFetch({})),
            store=DirectoryStore(scratch / "out"),
            probe=FfprobeGate(limits),
            workspace=Workspaces(scratch / "workspaces"),
            notify=MemoryWebhooks(),
            clock=time.monotonic,
            worker=Worker(version="0", engine=parts.name, worker_id="bench"),
            gpu_class=parts.device,
            job_timeout_seconds=TIMEOUT_SECONDS,
        )
        return cls(runtime, scratch)

    def film(self, footage: Footage, **fields: Any) -> Success:
        """Run a job; raise ``RuntimeError`` with its message if it fails."""
        face, voice = (path.absolute().as_uri() for path in (footage.face, footage.voice))
        # A job of the same id would be answered from its record.
        job_id = uuid.uuid4().hex
        job = {"musetalk_job_id": job_id, "video_url": face, "audio_url": voice, **fields}
        result = handle(job, self._runtime)
        if result.status == "failed":
            raise RuntimeError(result.error_message)
        return result

    def film_anew(self, footage: Footage) -> Success:
        """Run a job whose face is new."""
        shutil.rmtree(self._faces, ignore_errors=True)
        return self.film(footage)
