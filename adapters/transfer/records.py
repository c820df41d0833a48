"""Keep the records of jobs beside their videos; a record's presence means that its job is done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from adapters.transfer.bucket import RIVALS, Bucket, Condition
from adapters.transfer.entry import Absent, Entry, Found, Overtaken
from handler.errors import StoreFailed
from handler.job import Job
from handler.progress import Tick
from handler.record import Record

CONTENT_TYPE = "application/json"
#: A record is a few kilobytes, and 16 KiB of metadata at most.
LIMIT_BYTES = 1024**2

Pulse = Callable[[], None]


class S3Records:
    """Keeps records in a bucket: the port ``Records`` over S3.

    A record counts for as long as the video that it names lies there.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def find(self, job: Job, tick: Tick) -> Record | None:
        """Return what counts for a job's id; raise :class:`StoreFailed` if no one can tell.

        What is no record, or one of another format, is as good as none. So is what the key may not
        read: some stores say that of what is not there.
        """
        file = _File(self._bucket, job, lambda: tick(0.0))
        with self._bucket.patience_for("The look-up of the job's record"):
            record, _ = file.read()
            return record if record and file.counts(record) else None

    def commit(self, job: Job, record: Record, tick: Tick) -> Record:
        """Write a record unless one counts already, and return the one that does.

        Where the store compares, no two workers can both write. Elsewhere the last one wins, and
        what it wrote is made to say what lies there. Raises :class:`StoreFailed`.
        """
        file = _File(self._bucket, job, lambda: tick(1.0))
        with self._bucket.patience_for("The writing of the job's record"):
            for _ in range(RIVALS):
                known, there = file.read()
                if known and known.encode() == record.encode():
                    # An earlier try, whose answer was lost.
                    return record
                if known and file.counts(known):
                    return known
                with suppress(Overtaken, Absent):
                    return file.write(record, there)
        raise StoreFailed("The job's record could not be written: other workers keep writing it")


class _File:
    """The record of one job in a bucket, with an eye on the video that it tells of."""

    def __init__(self, bucket: Bucket, job: Job, pulse: Pulse) -> None:
        self._bucket = bucket
        self._job = job
        self._pulse = pulse
        self._entry = bucket.record(job, pulse)

    def read(self) -> tuple[Record | None, Found | None]:
        """Return the record, and the entry that it or anything else was read from."""
        there = self._entry.read(LIMIT_BYTES)
        if there is None:
            return None, None
        content, found = there
        return Record.decode(content, self._job.musetalk_job_id), found

    def counts(self, record: Record) -> bool:
        """Tell whether a record is true: its video was neither removed nor replaced."""
        if record.success.output_url != self._bucket.url(self._job):
            return True
        video = self._bucket.video(self._job, self._pulse).look()
        return video is not None and video.sha256 in {None, record.sha256}

    def write(self, record: Record, there: Found | None) -> Record:
        """Write a record over what was found there, and return what is on record then."""
        condition = self._bucket.unless_overtaken(there, self._pulse)
        self._put(self._entry, record, condition)
        return record if condition else self._settle(record)

    def _settle(self, record: Record) -> Record:
        """Have the record tell of the video that is there, should another worker's be by now.

        Each worker does so after its last write, so whoever comes last leaves both in agreement.
        """
        # The job is on record: nothing may stop it any more.
        video = self._bucket.video(self._job, _go_on)
        entry = self._bucket.record(self._job, _go_on)
        for _ in range(RIVALS):
            there = video.look()
            if there is None or there.sha256 in {None, record.sha256}:
                break
            if there.fingerprint != record.fingerprint:
                break
            record = record.holding(there.bytes, there.sha256)
            self._put(entry, record, {})
        return record

    @staticmethod
    def _put(entry: Entry, record: Record, condition: Condition) -> None:
        entry.call("put_object", Body=record.encode(), ContentType=CONTENT_TYPE, **condition)


def _go_on() -> None:
    """Let nothing stop it."""
