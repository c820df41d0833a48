"""What callers get: one success, one failure, both plain JSON (docs/contract.md section 2)."""

from __future__ import annotations

import traceback
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, TypeAdapter

from handler.errors import ErrorType, Stage, WorkerBroken, WorkerError
from handler.redaction import redact, redact_all

#: Readers of results accept fields that a later worker adds.
OPEN = ConfigDict(
    frozen=True,
    extra="ignore",
    serialize_by_alias=True,
    defer_build=True,
)


#: Which edition of docs/contract.md this worker keeps, for callers to compare. The second number
#: grows when something is added that callers may overlook: a field, an option, an ``error_code``.
#: The first grows when a caller must change: a name or a shape that it could rely on is another.
CONTRACT_VERSION = "1.0"


class CacheUse(StrEnum):
    """Say whether a face was already known."""

    HIT = "hit"
    MISS = "miss"


class Worker(BaseModel):
    """Say which worker answered, and exactly what it runs."""

    model_config = OPEN

    # None by default: what an older worker left on record did not tell it.
    contract: str | None = Field(None, description="edition of the contract, such as 1.0")
    version: str
    git_commit: str | None = None
    image_digest: str | None = None
    image_id: str | None = Field(None, description="what the platform calls the image; no digest")
    lock_sha256: str | None = Field(None, description="of the lock of the image's packages")
    engine: str
    weights: str | None = None
    torch: str | None = Field(None, description="version, if the engine uses PyTorch")
    cuda: str | None = Field(None, description="version, if the engine uses a GPU")
    face_tracker: str | None = Field(None, description="where faces are found: cuda or cpu")
    ffmpeg: str | None = None
    isolation: str | None = Field(None, description="of what opens media: rlimit or none")
    worker_id: str
    provider: str = "unknown"
    cold_start_sec: float | None = None


class Output(BaseModel):
    """Describe the finished video as it was found when probed."""

    model_config = OPEN

    width: int
    height: int
    fps: str = Field(description="an exact fraction, such as 30000/1001")
    frames: int
    duration: float = Field(description="seconds")
    bytes: int
    sha256: str
    video_codec: str
    audio_codec: str

    def holding(self, size_bytes: int, sha256: str) -> Self:
        """Return the same of another file, of that size and checksum."""
        return self.model_copy(update={"bytes": size_bytes, "sha256": sha256})


class Metrics(BaseModel):
    """Hold what a job cost, flat, in the names that callers already read."""

    model_config = OPEN

    generation_time_sec: float = Field(alias="GENERATION_TIME_SEC")
    script_wall_time_sec: float = Field(alias="SCRIPT_WALL_TIME_SEC")
    peak_vram_mib: float | None = Field(None, alias="PEAK_VRAM_MIB")
    peak_ram_kb: int | None = Field(None, alias="PEAK_RAM_KB")
    gpu_class: str
    stage_times: dict[str, float]
    total_time: float
    frames: int | None = None
    batch_size: int | None = None
    avatar_cache: CacheUse | None = None
    engine_times: dict[str, float] = Field({}, description="busy seconds of each step")
    attempts: dict[str, int] = Field({}, description="attempts of each transfer")


class Success(BaseModel):
    """Answer a job that has its video."""

    model_config = OPEN

    status: Literal["success"] = "success"
    output_url: str
    musetalk_job_id: str
    metrics: Metrics
    error: None = None
    warnings: tuple[str, ...] = ()
    metadata: dict[str, JsonValue] = {}
    replayed: bool = False
    output: Output | None = None
    worker: Worker | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, every field in it."""
        return self.model_dump(mode="json")


class Failure(BaseModel):
    """Answer a job that has none, and say who must act."""

    model_config = OPEN

    status: Literal["failed"] = "failed"
    error_type: ErrorType
    error_message: str
    stage: Stage
    details: dict[str, JsonValue] = {}
    stack_trace: str | None = None
    retryable: bool
    stage_times: dict[str, float] = {}
    error_code: str = "processing_failed"
    musetalk_job_id: str | None = None
    worker: Worker | None = None
    metadata: dict[str, JsonValue] = {}

    @classmethod
    def of(cls, error: BaseException, stage: Stage = Stage.UNKNOWN, **facts: Any) -> Self:
        """Describe what went wrong in the words of the contract, without secrets.

        ``stage`` is where it was met, unless the error itself knows better; ``facts`` are further
        fields, such as ``musetalk_job_id``.
        """
        # Only our own errors are believed; a stranger's may have attributes of the same name.
        known = error if isinstance(error, WorkerError | WorkerBroken) else None
        fault = error if isinstance(error, WorkerError) else None
        kind = known.error_type if known else ErrorType.UNKNOWN
        at_fault = error.__traceback__ and kind in (ErrorType.PROCESSING, ErrorType.UNKNOWN)
        return cls(
            error_type=kind,
            error_message=redact(str(error)) or type(error).__name__,
            stage=(fault and fault.stage) or stage,
            details=redact_all(fault.details) if fault else {},
            stack_trace=redact("".join(traceback.format_exception(error))) if at_fault else None,
            retryable=known.retryable if known else False,
            error_code=known.error_code if known else "unknown_error",
            **facts,
        )

    @property
    def http_status(self) -> int:
        """Return the status an HTTP door answers with."""
        return _HTTP_STATUS[self.error_type]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; a stack trace is there only where the worker is at fault."""
        return self.model_dump(
            mode="json", exclude={"stack_trace"} if not self.stack_trace else None
        )


_HTTP_STATUS = {
    ErrorType.MEDIA: 422,
    ErrorType.CANCELLED: 499,
    ErrorType.PROCESSING: 500,
    ErrorType.UNKNOWN: 500,
}

Result = Success | Failure


def read_result(data: object) -> Result:
    """Read a result back from JSON data; raise ``pydantic.ValidationError`` if it is none."""
    return TypeAdapter[Result](Annotated[Result, Discriminator("status")]).validate_python(data)
