"""Media from this machine's disk, and finished videos to it."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from handler.errors import SourceUnavailable, StoreFailed
from handler.job import Job
from handler.ports import Fetch, Fetched, Stored
from handler.progress import Tick
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
        key = job.output.key if job.output else None
        return _place(video, self._directory / (key or f"{job.musetalk_job_id}.mp4"), tick)


class FileStore:
    """Puts the video of a single job at a path of the user's choice."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, video: Path, job: Job, tick: Tick) -> Stored:
        """Write the file in one step; raise :class:`StoreFailed` if the disk does not take it."""
        return _place(video, self._path, tick)


def _place(video: Path, target: Path, tick: Tick) -> Stored:
    """Copy beside the target and rename: whoever opens the target sees all of it or nothing."""
    part = target.parent / f".{uuid.uuid4().hex}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(video, part, tick)
        part.replace(target)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreFailed(
            f"The video could not be written as {target.name}: {reason}",
            retryable=not isinstance(error, _LASTING),
            reason=reason,
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    tick(1.0)
    return Stored(target.resolve().as_uri())


def _copy(video: Path, part: Path, tick: Tick) -> None:
    size = max(video.stat().st_size, 1)
    with video.open("rb") as source, part.open("xb") as sink:
        while chunk := source.read(COPY_BYTES):
            tick(sink.tell() / size)
            sink.write(chunk)
        sink.flush()
        # Else a crash could leave the new name with none of the bytes.
        os.fsync(sink.fileno())
