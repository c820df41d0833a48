"""What callers send: the job, and the only validation of it (docs/contract.md section 1)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from handler.errors import InvalidJob

#: Largest ``metadata`` of a job, as JSON.
METADATA_LIMIT_BYTES = 16 * 1024
#: How many faults one message names; a hostile body can have thousands.
FAULTS_NAMED = 5
#: More than any object of a job has: to find a fault in each of thousands takes its time.
FIELDS_LIMIT = 64
#: What the names of job records end in (docs/contract.md section 5).
RECORD_SUFFIX = ".json"

CLOSED = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class SyncMode(StrEnum):
    """Say what happens when face and voice differ in length."""

    BOUNCE = "bounce"
    LOOP = "loop"
    CUT_OFF = "cut_off"
    SILENCE = "silence"
    REMAP = "remap"


class ParsingMode(StrEnum):
    """Say which part of the face is replaced."""

    JAW = "jaw"
    RAW = "raw"
    NECK = "neck"


class Fit(StrEnum):
    """Say how a picture of another aspect ratio is brought to the one asked for."""

    KEEP = "keep"
    PAD = "pad"
    CROP = "crop"


def _without_dot_dot(value: str) -> str:
    if ".." in value:
        raise ValueError("must not contain '..'")
    return value


def _no_record(key: str) -> str:
    if key.lower().endswith(RECORD_SUFFIX):
        raise ValueError(f"must not end in {RECORD_SUFFIX}, as the records of jobs do")
    return key


def _small(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:
        raise ValueError("must hold no NaN, no infinity and no broken Unicode") from None
    if size > METADATA_LIMIT_BYTES:
        raise ValueError(f"must be at most {METADATA_LIMIT_BYTES} bytes of JSON, is {size}")
    return value


Url = Annotated[
    str, StringConstraints(max_length=2048, pattern=r"^[A-Za-z][A-Za-z0-9+.\-]*://\S+$")
]
#: Signed for a session, they carry its token.
SignedUrl = Annotated[
    str, StringConstraints(max_length=8192, pattern=r"^[A-Za-z][A-Za-z0-9+.\-]*://\S+$")
]
HttpsUrl = Annotated[str, StringConstraints(max_length=2048, pattern=r"^https://\S+$")]
JobId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._:\-]{1,200}$"),
    AfterValidator(_without_dot_dot),
]
ObjectKey = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._:\-][A-Za-z0-9._:/\-]{0,999}$"),
    AfterValidator(_without_dot_dot),
    AfterValidator(_no_record),
]
AspectRatio = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}:[1-9][0-9]{0,3}$")]
Resolution = Annotated[
    str, StringConstraints(pattern=r"^([1-9][0-9]{1,3}p|[1-9][0-9]{1,3}x[1-9][0-9]{1,3})$")
]


class Params(BaseModel):
    """Hold the options of a job; an option an engine has no use for is named in a warning."""

    model_config = CLOSED

    bbox_shift: int = Field(0, ge=-50, le=50, description="pixels the mouth moves down")
    extra_margin: int = Field(10, ge=0, le=100, description="pixels added below the chin")
    parsing_mode: Annotated[ParsingMode, Field(strict=False)] = ParsingMode.JAW
    left_cheek_width: int = Field(90, ge=20, le=160)
    right_cheek_width: int = Field(90, ge=20, le=160)
    fps: float = Field(25, ge=1, le=60, description="frame rate, for still images only")
    batch_size: int | None = Field(None, ge=1, le=64, description="a ceiling")
    fit: Annotated[Fit, Field(strict=False)] = Fit.KEEP
    crf: int = Field(18, ge=0, le=51, description="constant rate factor of the encoder")


class OutputTarget(BaseModel):
    """Say where the result goes: a key in the worker's bucket, or a presigned pair of URLs."""

    model_config = CLOSED

    key: ObjectKey | None = None
    put_url: SignedUrl | None = None
    get_url: SignedUrl | None = None

    @model_validator(mode="after")
    def _key_or_pair(self) -> Self:
        pair = (self.put_url is not None, self.get_url is not None)
        if pair not in ((True, True), (False, False)) or (self.key is not None) == pair[0]:
            raise ValueError("must hold either 'key' or both 'put_url' and 'get_url'")
        return self


class Job(BaseModel):
    """Hold one request, valid by construction."""

    model_config = CLOSED

    musetalk_job_id: JobId = Field(default_factory=lambda: uuid.uuid4().hex)
    video_url: Url
    audio_url: Url
    aspect_ratio: AspectRatio | None = None
    resolution: Resolution | None = None
    params: Params = Field(default_factory=Params)
    sync_mode: Annotated[SyncMode, Field(strict=False)] = SyncMode.BOUNCE
    output: OutputTarget | None = None
    webhook_url: HttpsUrl | None = None
    deadline_seconds: float | None = Field(None, ge=1, le=86400)
    metadata: Annotated[dict[str, JsonValue], AfterValidator(_small)] = {}

    @classmethod
    def parse(cls, raw: object) -> Self:
        """Read a job from JSON-like data, where ``null`` means that a field was not given.

        Raises :class:`InvalidJob`, which names the field at fault and never repeats its value.
        """
        if not isinstance(raw, Mapping):
            raise InvalidJob("The job must be a JSON object.", field=None)
        try:
            return cls.model_validate(_given(raw, cls))
        except ValidationError as error:
            raise _invalid(error) from None


def _given(raw: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Drop the known fields that are null, also in the objects below."""
    if len(raw) > FIELDS_LIMIT:
        raise InvalidJob(f"Invalid job: {len(raw)} fields in one object.", field=None)
    given = {
        name: value
        for name, value in raw.items()
        if value is not None or name not in model.model_fields
    }
    for name, below in (("params", Params), ("output", OutputTarget)):
        if isinstance(given.get(name), Mapping):
            given[name] = _given(given[name], below)
    return given


def _invalid(error: ValidationError) -> InvalidJob:
    faults = [
        (
            ".".join(str(part) for part in fault["loc"]) or "job",
            fault["msg"].removeprefix("Value error, "),
        )
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    named = "; ".join(f"{field[:200]}: {reason}" for field, reason in faults[:FAULTS_NAMED])
    field, reason = faults[0]
    return InvalidJob(f"Invalid job: {named}", field=field[:200], reason=reason)


def with_job_id(raw: Any, job_id: str | None) -> Any:
    """Give a request that brings no id of its own another, such as its platform's."""
    if not isinstance(raw, Mapping) or raw.get("musetalk_job_id") is not None:
        return raw
    return {**raw, "musetalk_job_id": job_id}


def job_id_of(raw: object) -> str | None:
    """Return the id that a request carries, if it is a legal one, even where the rest is not."""
    candidate = raw.get("musetalk_job_id") if isinstance(raw, Mapping) else None
    try:
        return TypeAdapter(JobId).validate_python(candidate, strict=True)
    except ValidationError:
        return None
