"""Put finished videos where the caller has presigned a place for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from adapters.transfer.guard import Policy, Unreachable
from adapters.transfer.retry import PATIENT, Retry, Transient
from adapters.transfer.wire import Wire
from handler.errors import StoreFailed
from handler.job import Job
from handler.ports import Store, Stored
from handler.progress import Tick
from handler.redaction import redact

CHUNK_BYTES = 256 * 1024


class PresignedStore:
    """Puts videos to the URLs their jobs bring along, and all others by other means."""

    def __init__(
        self,
        policy: Policy,
        otherwise: Store | None = None,
        *,
        stall_seconds: float,
        retry: Retry = PATIENT,
    ) -> None:
        """Give jobs without a URL to ``otherwise``; with None there they cannot be stored.

        A try is given up when for ``stall_seconds`` nothing is taken or no answer comes.
        """
        self._wire = Wire(policy, stall_seconds=stall_seconds)
        self._otherwise = otherwise
        self._retry = retry

    def __call__(self, video: Path, job: Job, tick: Tick) -> Stored:
        """Upload a video with one PUT; ``tick`` may stop it at every step.

        Raises :class:`StoreFailed`, retryable unless the URL itself is at fault.
        """
        if job.output and job.output.put_url and job.output.get_url:
            return self._store(video, job.output.put_url, job.output.get_url, tick)
        if self._otherwise is None:
            raise StoreFailed(
                "This worker has no storage of its own: send output.put_url and output.get_url"
                " with the job, or have B2_KEY_ID, B2_APP_KEY and B2_BUCKET_NAME set.",
                retryable=False,
            )
        return self._otherwise(video, job, tick)

    def _store(self, video: Path, put_url: str, get_url: str, tick: Tick) -> Stored:
        def attempt(number: int) -> Stored:
            with video.open("rb") as file:
                self._put(file, video.stat().st_size, put_url, tick)
            return Stored(get_url, number)

        place = redact(put_url)
        try:
            return self._retry.run(attempt, lambda: tick(0.0))
        except Unreachable as error:
            raise StoreFailed(
                f"Upload failed: {error}", retryable=False, url=place, reason=str(error)
            ) from error
        except Transient as error:
            raise StoreFailed(
                f"Upload failed after {error.effort}: {error}", url=place, **error.details
            ) from error

    def _put(self, file: BinaryIO, size: int, put_url: str, tick: Tick) -> None:
        headers = {"Content-Length": str(size), "Content-Type": "video/mp4"}

        def pulse() -> None:
            tick(file.tell() / max(size, 1))

        with self._wire.send("PUT", put_url, headers, pulse=pulse, content=_chunks(file)) as reply:
            if not reply.succeeded:
                raise StoreFailed(
                    f"Upload failed: {reply}",
                    retryable=False,
                    url=redact(put_url),
                    status_code=reply.status,
                )
        tick(1.0)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
