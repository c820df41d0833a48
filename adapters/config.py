"""Every setting of the worker, read once from the environment (docs/contract.md section 6)."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
)

from adapters.transfer.bucket import DEFAULT_OUTPUT_URL_TEMPLATE

#: The first of these that is set names the worker, in every message that it sends.
IDENTITY_VARIABLES = (
    "BUFFER_WORKER_ID",
    "SALAD_MACHINE_ID",
    "VAST_CONTAINERLABEL",
    "OCTASPACE_NODE_ID",
    "RUNPOD_POD_ID",
    "WORKER_ID",
)


class ConfigError(Exception):
    """A setting is missing or wrong; the message names the variable, and never a secret."""


class EngineName(StrEnum):
    """Name an engine that the worker can be told to use."""

    MUSETALK = "musetalk"
    PREVIEW = "preview"


class DtypeName(StrEnum):
    """Name a precision of the networks; auto is half on CUDA and single elsewhere."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class EncoderName(StrEnum):
    """Name an encoder that the worker can be told to use; auto is NVENC where it works."""

    AUTO = "auto"
    NVENC = "nvenc"
    LIBX264 = "libx264"


def _comma_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = (name.strip().lower() for name in value.split(","))
    return frozenset(name for name in names if name not in ("", "false"))


def _printable(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise ValueError("must be printable ASCII without spaces, as a header carries it")
    return secret


HostNames = Annotated[frozenset[str], BeforeValidator(_comma_list)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_printable)]
BaseUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]


class Config(BaseModel):
    """Hold the settings; the alias of each field is its environment variable."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    engine: EngineName = Field(EngineName.MUSETALK, alias="MUSETALK_ENGINE")
    weights_dir: Path = Field(Path("/weights"), alias="MUSETALK_WEIGHTS_DIR")
    avatar_cache_dir: Path = Field(
        # This user's own: what another put there could be anything.
        Path(tempfile.gettempdir()) / f"musetalk-avatars-{os.getuid()}",
        alias="AVATAR_CACHE_DIR",
    )
    avatar_cache_mb: int = Field(1024, alias="AVATAR_CACHE_MB", ge=0)
    batch_size: int = Field(8, alias="BATCH_SIZE", ge=1, le=64)
    device: str = Field("auto", alias="DEVICE", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: DtypeName = Field(DtypeName.AUTO, alias="DTYPE")
    compile_networks: bool = Field(default=False, alias="COMPILE")
    #: Where compiled networks are remembered; None is a place below ``avatar_cache_dir``.
    compile_cache_dir: Path | None = Field(None, alias="COMPILE_CACHE_DIR")
    encoder: EncoderName = Field(EncoderName.AUTO, alias="ENCODER")

    #: Whether the engine has a process of its own.
    supervised: bool = Field(default=False, alias="SUPERVISED")

    b2_key_id: str | None = Field(None, alias="B2_KEY_ID")
    b2_app_key: SecretStr | None = Field(None, alias="B2_APP_KEY")
    b2_bucket_name: str | None = Field(None, alias="B2_BUCKET_NAME")
    b2_prefix: str = Field("avatar/outputs", alias="B2_PREFIX")
    s3_endpoint_url: str = Field(
        # The cluster that the default OUTPUT_URL_TEMPLATE, f000, belongs to.
        "https://s3.us-west-000.backblazeb2.com",
        alias="S3_ENDPOINT_URL",
        pattern=r"^https?://[^\s/?#]+/?$",
    )
    s3_region: str = Field("us-west-000", alias="S3_REGION")
    output_url_template: str = Field(
        DEFAULT_OUTPUT_URL_TEMPLATE, alias="OUTPUT_URL_TEMPLATE", pattern=r"\{key\}"
    )
    output_dir: Path | None = Field(None, alias="OUTPUT_DIR")

    job_timeout_sec: float = Field(1800, alias="JOB_TIMEOUT_SEC", gt=0)
    max_download_mb: int = Field(500, alias="MAX_DOWNLOAD_MB", ge=1)
    max_video_sec: float = Field(600, alias="MAX_VIDEO_SEC", gt=0)
    max_audio_sec: float = Field(600, alias="MAX_AUDIO_SEC", gt=0)
    max_pixels: int = Field(3840 * 2160, alias="MAX_PIXELS", ge=1)
    max_fps: float = Field(120, alias="MAX_FPS", ge=1)
    stall_sec: float = Field(30, alias="STALL_SEC", gt=0)

    allow_http: bool = Field(default=False, alias="ALLOW_HTTP")
    allow_private_hosts: HostNames = Field(frozenset(), alias="ALLOW_PRIVATE_HOSTS")
    webhook_secret: SecretStr | None = Field(None, alias="WEBHOOK_SECRET")

    #: Who collects spans of jobs; the exporter reads this and its relatives by itself.
    otlp_endpoint: str | None = Field(None, alias="OTEL_EXPORTER_OTLP_ENDPOINT")

    host: str = Field("127.0.0.1", alias="HOST")
    port: int = Field(8000, alias="PORT", ge=0, le=65535)
    worker_token: HeaderSecret | None = Field(None, alias="WORKER_TOKEN")

    orchestrator_base_url: BaseUrl | None = Field(None, alias="ORCHESTRATOR_BASE_URL")
    buffer_orchestrator_base_url: BaseUrl | None = Field(None, alias="BUFFER_ORCHESTRATOR_BASE_URL")
    internal_api_key: HeaderSecret | None = Field(None, alias="INTERNAL_API_KEY")
    poll_interval_sec: float = Field(5, alias="POLL_INTERVAL_SEC", gt=0)
    buffer_poll_interval_sec: float = Field(10, alias="BUFFER_POLL_INTERVAL_SEC", gt=0)
    buffer_capacity: int = Field(1, alias="BUFFER_CAPACITY", ge=1)
    #: Where reports lie until they are taken; None is a place below ``avatar_cache_dir``.
    spool_dir: Path | None = Field(None, alias="SPOOL_DIR")
    #: Seconds for the job in hand when told to stop; ``docker stop`` kills after 10.
    drain_sec: float = Field(6, alias="DRAIN_SEC", ge=0)

    worker_id: str
    #: The two names of ``worker_id`` that also say whom the worker works for.
    main_worker_id: str | None = Field(None, alias="WORKER_ID")
    buffer_worker_id: str | None = Field(None, alias="BUFFER_WORKER_ID")
    worker_type: str = Field("main", alias="WORKER_TYPE")
    worker_mode: str = Field("queue", alias="WORKER_MODE")
    provider: str = Field("unknown", alias="PROVIDER")
    gpu_class: str | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, supervised: bool = False) -> Self:
        """Read the settings; a variable that is set to nothing counts as not set.

        ``supervised`` is what the door would have where ``SUPERVISED`` leaves it the choice.
        Raises :class:`ConfigError`, which names the variable at fault.
        """
        names = {field.alias for field in cls.model_fields.values() if field.alias}
        given: dict[str, Any] = {name: env[name] for name in names if env.get(name)}
        if given.get("SUPERVISED", "auto") == "auto":
            given["SUPERVISED"] = supervised
        identities = (env[name] for name in IDENTITY_VARIABLES if env.get(name))
        given["worker_id"] = next(identities, None) or socket.gethostname()
        given["gpu_class"] = env.get("GPU_CLASS_NAME") or env.get("GPU_CLASS") or None
        try:
            config = cls.model_validate(given)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from None
        config.check_storage()
        return config

    def check_storage(self) -> None:
        """Raise :class:`ConfigError` if only some of the bucket's variables are set."""
        parts = {
            "B2_KEY_ID": self.b2_key_id,
            "B2_APP_KEY": self.b2_app_key,
            "B2_BUCKET_NAME": self.b2_bucket_name,
        }
        missing = [name for name, value in parts.items() if value is None]
        if 0 < len(missing) < len(parts):
            raise ConfigError(f"{' and '.join(missing)} must be set too, to store in a bucket.")

    def without_secrets(self) -> Self:
        """Return what an engine needs to know: the same, but for the keys to other services."""
        secrets = [name for name, value in self if isinstance(value, SecretStr)]
        return self.model_copy(update=dict.fromkeys([*secrets, "b2_key_id"]))

    @property
    def has_storage(self) -> bool:
        """Tell whether the worker can store a video that brings no URL of its own."""
        return self.output_dir is not None or self.b2_bucket_name is not None

    @property
    def storage(self) -> str:
        """Return where videos go, as an operator would say it."""
        if self.output_dir is not None:
            return f"directory {self.output_dir}"
        if self.b2_bucket_name is not None:
            return f"bucket {self.b2_bucket_name}/{self.b2_prefix} at {self.s3_endpoint_url}"
        return "none but what jobs bring"


def _explain(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in faults)
