"""Media from this machine's disk, and finished videos and their records to it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from handler.errors import SourceUnavailable, StoreFailed
from handler.job import Job
from handler.ports import Fetch, Fetched, Stored
from handler.progress import Tick
from handler.record import Record
from handler.redaction import redact

COPY_BYTES = 1024**2

#: Somebody must change something before another try can help.
_LASTING = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)


class LocalFetch:
    """Fetches ``file:`` URLs from this machine, and all others by other means.

    For the command line alone: behind any other door it would hand out the worker's own files.
    """

    def __init__(self, otherwise: Fetch) -> None:
        self._otherwise = otherwise

    def __call__(self, url: str, path: Path, tick: Tick) -> Fetched:
        """Link or copy a file to a path; raise :class:`SourceUnavailable` if it is not there."""
        if not url.lower().startswith("file:"):
            return self._otherwise(url, path, tick)
        source = Path(unquote(urlsplit(url).path))
        if not source.is_file():
            raise _unavailable(url, f"there is no file {source}")
        try:
            _link_or_copy(source, path)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unavailable(url, f"{source} cannot be read: {error.strerror}") from error
        tick(1.0)
        return Fetched(path, path.stat().st_size, sha256)


def _unavailable(url: str, reason: str) -> SourceUnavailable:
    return SourceUnavailable(f"Download failed: {reason}", url=redact(url), reason=reason)


def _link_or_copy(source: Path, path: Path) -> None:
    try:
        path.hardlink_to(source.resolve())
    except OSError:
        # Another filesystem, or another user's file.
        shutil.copyfile(source, path)


class DirectoryStore:
    """Puts videos into a directory: the port ``Store`` without a bucket."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self, video: Path, job: Job, tick: Tick) -> Stored:
        """Write ``{job id}.mp4``, or the job's own key, in one step that readers can see.

        Raises :class:`StoreFailed` if the disk does not take it.
        """
        return _place(video, _video_path(self._directory, job), tick)


class DirectoryRecords:
    """Keeps records beside the videos of a directory: the port ``Records`` without a bucket.

    A record counts for as long as the video that it names lies there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, job: Job, tick: Tick) -> Record | None:
        """Return what counts for a job's id; raise :class:`StoreFailed` if the disk cannot tell.

        What is no record, or one of another format, is as good as none.
        """
        path = self._path(job)
        with _disk_faults(f"The job's record {path.name} could not be read"):
            try:
                record = Record.decode(path.read_bytes(), job.musetalk_job_id)
            except FileNotFoundError:
                return None
            return record if record and self._counts(record, job) else None

    def commit(self, job: Job, record: Record, tick: Tick) -> Record:
        """Write ``{job id}.json`` unless one counts already, and return the one that does.

        Readers see all of it or nothing. Raises :class:`StoreFailed`.
        """
        tick(1.0)
        path = self._path(job)
        with _disk_faults(f"The job's record could not be written as {path.name}"):
            with _part(path) as part, self._alone():
                if known := self.find(job, tick):
                    return known
                with part.open("xb") as file:
                    file.write(record.encode())
                    _sync(file)
                part.replace(path)
        return record

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other workers of the directory from writing, where its filesystem has locks."""
        lock = os.open(self._directory, os.O_RDONLY)
        try:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _path(self, job: Job) -> Path:
        return self._directory / f"{job.musetalk_job_id}.json"

    def _counts(self, record: Record, job: Job) -> bool:
        video = _video_path(self._directory, job)
        if record.success.output_url != video.resolve().as_uri():
            return True
        try:
            with video.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == record.sha256
        except FileNotFoundError:
            return False


def _video_path(directory: Path, job: Job) -> Path:
    key = job.output.key if job.output else None
    return directory / (key or f"{job.musetalk_job_id}.mp4")


class FileStore:
    """Puts the video of a single job at a path of the user's choice."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, video: Path, job: Job, tick: Tick) -> Stored:
        """Write the file in one step; raise :class:`StoreFailed` if the disk does not take it."""
        return _place(video, self._path, tick)


def _place(video: Path, target: Path, tick: Tick) -> Stored:
    """Copy beside the target and rename: whoever opens the target sees all of it or nothing."""
    with _disk_faults(f"The video could not be written as {target.name}"), _part(target) as part:
        _copy(video, part, tick)
        part.replace(target)
    tick(1.0)
    return Stored(target.resolve().as_uri())


@contextmanager
def _part(target: Path) -> Iterator[Path]:
    """Lend a name beside a target; what still has it at the end is removed."""
    part = target.parent / f".{uuid.uuid4().hex}.part"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def _disk_faults(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreFailed(
            f"{what}: {reason}", retryable=not isinstance(error, _LASTING), reason=reason
        ) from error


def _copy(video: Path, part: Path, tick: Tick) -> None:
    size = max(video.stat().st_size, 1)
    with video.open("rb") as source, part.open("xb") as sink:
        while chunk := source.read(COPY_BYTES):
            tick(sink.tell() / size)
            sink.write(chunk)
        _sync(sink)


def _sync(file: BinaryIO) -> None:
    """Have the disk keep it: a crash could leave the new name with none of the bytes."""
    file.flush()
    os.fsync(file.fileno())
