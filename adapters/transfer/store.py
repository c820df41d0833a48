"""Put finished videos into a bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

from adapters.transfer.bucket import RIVALS, Bucket, Condition
from adapters.transfer.entry import Absent, Entry, Found, Overtaken
from handler.errors import IdempotencyConflict, StoreFailed
from handler.job import Job
from handler.ports import Content, Records, Stored
from handler.progress import Tick

CONTENT_TYPE = "video/mp4"

#: S3 takes no smaller parts than 5 MiB, except the last, and no more than 10,000.
PART_BYTES = 16 * 1024**2


class S3Store:
    """Puts videos into a bucket: the port ``Store`` over S3.

    A video that another worker made of the same job is not replaced: the bytes at a URL that was
    handed out do not change. Each video carries its checksum, and the fingerprint of its job, to be
    known by.
    """

    def __init__(
        self,
        bucket: Bucket,
        records: Records,
        identify: Callable[[Job], str],
        *,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """Tell jobs apart by ``identify``; a video larger than ``part_bytes`` goes in parts."""
        self._bucket = bucket
        self._records = records
        self._identify = identify
        self._part_bytes = part_bytes

    def __call__(self, video: Path, job: Job, tick: Tick) -> Stored:
        """Upload a video and check that all of it arrived.

        ``tick`` may stop it between requests. Raises :class:`StoreFailed`, retryable unless the
        bucket or its key must be put right first, and :class:`IdempotencyConflict`.
        """
        with self._bucket.patience_for("Upload"), video.open("rb") as file:
            upload = _Upload(file, self._identify(job), tick, self._part_bytes)
            entry = self._bucket.video(job, upload.pulse)
            there = self._bring(upload, entry, job)
        tick(1.0)
        content = Content(there.bytes, there.sha256) if there.sha256 else None
        return Stored(self._bucket.url(job), entry.attempts, content)

    def _bring(self, upload: _Upload, entry: Entry, job: Job) -> Found:
        """Return what lies there at last: the video in hand, or another of the same job."""
        for _ in range(RIVALS):
            there = entry.look()
            if there and there.fingerprint == upload.fingerprint:
                return there
            if there:
                self._refuse_taken(job, upload)
            try:
                upload.send(entry, self._bucket.unless_overtaken(there, upload.pulse))
            except (Overtaken, Absent):
                continue
            return upload.check(entry)
        raise StoreFailed("Upload failed: other workers keep writing under the same name")

    def _refuse_taken(self, job: Job, upload: _Upload) -> None:
        """Let nobody's video be replaced that somebody was told of."""
        record = self._records.find(job, lambda _: upload.pulse())
        if record and record.fingerprint != upload.fingerprint:
            raise IdempotencyConflict.over(job.musetalk_job_id)


class _Upload:
    """One video on its way, and how much of it is there."""

    def __init__(self, file: BufferedReader, fingerprint: str, tick: Tick, part_bytes: int) -> None:
        self.fingerprint = fingerprint
        self._file = file
        self._sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self._size = file.tell()
        self._tick = tick
        self._part_bytes = part_bytes
        self._fraction = 0.0

    def pulse(self) -> None:
        """Say how far it is."""
        self._tick(self._fraction)

    def send(self, entry: Entry, condition: Condition) -> None:
        """Send the file, at once or in parts; nobody sees any of it before all of it is there."""
        self._file.seek(0)
        about = {
            "ContentType": CONTENT_TYPE,
            "Metadata": {"sha256": self._sha256, "fingerprint": self.fingerprint},
        }
        if self._size > self._part_bytes:
            self._send_parts(entry, about, condition)
        else:
            entry.call("put_object", Body=self._file.read(), **about, **condition)

    def check(self, entry: Entry) -> Found:
        """Return what has arrived; raise :class:`StoreFailed` unless it is a video of this job."""
        there = entry.head()
        # Some stores keep no more than the bytes.
        if there.bytes == self._size and there.sha256 in {None, self._sha256}:
            return there
        # A store without conditions took another worker's, after ours.
        if there.fingerprint == self.fingerprint and there.sha256 != self._sha256:
            return there
        raise StoreFailed(f"Upload failed: the store holds {there.bytes} of {self._size} bytes")

    def _send_parts(self, entry: Entry, about: dict[str, Any], condition: Condition) -> None:
        begun = entry.call("create_multipart_upload", **about)["UploadId"]
        parts: list[dict[str, Any]] = []
        try:
            while chunk := self._file.read(self._part_bytes):
                number = len(parts) + 1
                sent = entry.call("upload_part", UploadId=begun, PartNumber=number, Body=chunk)
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
                self._fraction = self._file.tell() / self._size
            whole = {"Parts": parts}
            entry.call(
                "complete_multipart_upload", UploadId=begun, MultipartUpload=whole, **condition
            )
        except BaseException:
            # Parts of an unfinished upload are invisible, and paid for.
            entry.forget(UploadId=begun)
            raise
