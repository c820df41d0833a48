"""Every way in which a job can fail, and who must act.

::

    * WorkerError                 error_type         retryable   who must act
      x InvalidJob                media_error        never       the caller: fix the request
      x MediaError                media_error        never       the caller: fix the media
        + SourceUnavailable
        + MediaUnreadable
        + UnsupportedMedia
        + StreamMissing
        + MediaTooLong
        + MediaTooLarge
        + AudioEmpty
        + FaceNotFound
      x ProcessingError           processing_error   mostly      the worker, network or store
        + FetchFailed
        + StoreFailed
        + OutOfMemory
        + EngineStalled
        + EngineDied
        + EngineBroken
        + OutputInvalid
        + MouthBlank
        + ToolMissing
        + DeadlineExceeded
        + IdempotencyConflict
        + PoisonJob
      x Cancelled                 cancelled          never       nobody
    * WorkerBroken                processing_error   yes         the platform: replace the process

A class's docstring is fit for a user's eyes. The stage of a failure is the one in which it was
raised, unless the error itself knows better.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from handler.result import Failure


class ErrorType(StrEnum):
    """Name whose fault a failure is, in the contract's words."""

    MEDIA = "media_error"
    PROCESSING = "processing_error"
    UNKNOWN = "unknown_error"
    CANCELLED = "cancelled"


class Stage(StrEnum):
    """Name the part of a job's path in which something happened."""

    DOWNLOAD = "download"
    VALIDATION = "validation"
    PREPROCESSING = "preprocessing"
    INFERENCE = "inference"
    POSTPROCESSING = "postprocessing"
    UPLOAD = "upload"
    UNKNOWN = "unknown"


class WorkerError(Exception):
    """The job failed."""

    error_type: ClassVar[ErrorType] = ErrorType.PROCESSING
    #: A stable word for programs; the message may change, this may not.
    error_code: ClassVar[str] = "processing_failed"
    retryable: bool = True
    #: Set where the fault belongs to another stage than the one that met it.
    stage: Stage | None = None

    def __init__(self, message: str, *, stage: Stage | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Any] = details
        if stage is not None:
            self.stage = stage


class InvalidJob(WorkerError):
    """The request itself is wrong: a field is missing, unknown or out of range."""

    error_type = ErrorType.MEDIA
    error_code = "invalid_job"
    retryable = False
    stage = Stage.VALIDATION


class MediaError(WorkerError):
    """The media is at fault: trying again anywhere cannot help."""

    error_type = ErrorType.MEDIA
    error_code = "media_invalid"
    retryable = False


class SourceUnavailable(MediaError):
    """The URL cannot be fetched, and no retry would change that."""

    error_code = "download_failed"


class MediaUnreadable(MediaError):
    """The file is not audio, video or a picture that can be decoded."""

    error_code = "media_unreadable"


class UnsupportedMedia(MediaError):
    """The file is media, but of a format, codec or shape that is not accepted."""

    error_code = "unsupported_media"


class StreamMissing(MediaError):
    """The face has no picture, or the voice has no sound."""

    error_code = "stream_missing"


class MediaTooLong(MediaError):
    """The media lasts longer than this worker accepts."""

    error_code = "media_too_long"


class MediaTooLarge(MediaError):
    """The file or the picture is larger than this worker accepts."""

    error_code = "media_too_large"


class AudioEmpty(MediaError):
    """The voice holds no sound at all."""

    error_code = "audio_empty"


class FaceNotFound(MediaError):
    """No face was found in any frame of the video."""

    error_code = "face_not_found"
    stage = Stage.PREPROCESSING


class ProcessingError(WorkerError):
    """The worker, the network or the store is at fault."""


class FetchFailed(ProcessingError):
    """The download failed for a reason that may pass."""

    error_code = "fetch_failed"


class StoreFailed(ProcessingError):
    """The store could not be asked, or did not take the finished video or its record."""

    error_code = "store_failed"
    stage = Stage.UPLOAD

    def __init__(self, message: str, *, retryable: bool = True, **details: Any) -> None:
        super().__init__(message, **details)
        self.retryable = retryable


class OutOfMemory(ProcessingError):
    """The job does not fit into the memory of this worker, even one frame at a time."""

    error_code = "out_of_memory"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message, is_oom=True, **details)


class EngineStalled(ProcessingError):
    """The engine gave no sign of life for too long; it was stopped, and another took its place."""

    error_code = "engine_stalled"


class EngineDied(ProcessingError):
    """The engine's process ended in the middle of the job; another took its place."""

    error_code = "engine_died"


class EngineBroken(ProcessingError):
    """The engine lost its GPU in the middle of the job; another took its place."""

    error_code = "engine_broken"


class OutputInvalid(ProcessingError):
    """The finished video is not what was asked for, so nothing was uploaded."""

    error_code = "output_invalid"
    stage = Stage.POSTPROCESSING


class MouthBlank(ProcessingError):
    """The networks gave no picture for a mouth: their numbers ran out of bounds."""

    error_code = "mouth_blank"
    # The same numbers would come of the same job.
    retryable = False
    stage = Stage.INFERENCE


class ToolMissing(ProcessingError):
    """A program that the worker needs is not installed."""

    error_code = "tool_missing"
    retryable = False


class DeadlineExceeded(ProcessingError):
    """The job took longer than its deadline allows."""

    error_code = "deadline_exceeded"


class IdempotencyConflict(ProcessingError):
    """The job's id belongs to another job already: send this one under an id of its own."""

    error_code = "idempotency_conflict"
    retryable = False
    stage = Stage.VALIDATION

    @classmethod
    def over(cls, job_id: str) -> Self:
        """Return the error about an id."""
        return cls(
            f"The id {job_id} belongs to a job with other media, options or weights, and that one"
            " is done: send this job under an id of its own."
        )


class PoisonJob(ProcessingError):
    """The job killed the worker each time that it was tried, so it is not tried again."""

    error_code = "poison_job"
    retryable = False


class Cancelled(WorkerError):
    """The caller took the job back."""

    error_type = ErrorType.CANCELLED
    error_code = "cancelled"
    retryable = False


class WorkerBroken(Exception):
    """The process can do no further job: answer the one in hand, then be replaced.

    ``failure`` is the answer for the job in hand; :func:`handler.handle` fills it in.
    """

    error_type: ClassVar[ErrorType] = ErrorType.PROCESSING
    error_code: ClassVar[str] = "worker_broken"
    retryable: ClassVar[bool] = True
    failure: Failure
