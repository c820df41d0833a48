"""Every setting of the worker, read once from the environment (docs/contract.md section 6).

The text below each field is what docs/configuration.md tells an operator of it.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from adapters.transfer.bucket import DEFAULT_OUTPUT_URL_TEMPLATE
from adapters.values import (
    BaseUrl,
    Commit,
    DeviceName,
    DtypeName,
    EncoderName,
    EngineName,
    FirstOf,
    HeaderSecret,
    HostNames,
    HostUrl,
    ImageDigest,
    UrlTemplate,
    Words,
)

__all__ = [
    "GPU_CLASS_VARIABLES",
    "IDENTITY_VARIABLES",
    "Config",
    "ConfigError",
    "DtypeName",
    "EncoderName",
    "EngineName",
]

#: The first of these that is set names the worker, in every message that it sends.
IDENTITY_VARIABLES = (
    "BUFFER_WORKER_ID",
    "SALAD_MACHINE_ID",
    "VAST_CONTAINERLABEL",
    "OCTASPACE_NODE_ID",
    "RUNPOD_POD_ID",
    "WORKER_ID",
)
#: The first of these that is set names the GPU, as the orchestrator sorts them.
GPU_CLASS_VARIABLES = ("GPU_CLASS_NAME", "GPU_CLASS")


class ConfigError(Exception):
    """A setting is missing or wrong; the message names the variable, and never a secret."""


class Config(BaseModel):
    """Hold the settings; the alias of each field is its environment variable."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    engine: EngineName = Field(EngineName.MUSETALK, alias="MUSETALK_ENGINE")
    """What makes the mouth speak. `preview` needs neither weights nor a GPU and is no lip-sync."""
    weights_dir: Path = Field(Path("/weights"), alias="MUSETALK_WEIGHTS_DIR")
    """Where MuseTalk's weights lie. If not set, RunPod's cache of models and its network volume
    are looked at too, where `/weights` lacks a file."""
    avatar_cache_dir: Annotated[
        Path, Words(unset="`musetalk-avatars-UID` in the temporary directory")
    ] = Field(
        # This user's own: what another put there could be anything.
        Path(tempfile.gettempdir()) / f"musetalk-avatars-{os.getuid()}",
        alias="AVATAR_CACHE_DIR",
    )
    """Where faces are remembered, and below it the journal of jobs in hand. On a volume it outlives
    the container."""
    avatar_cache_mb: int = Field(1024, alias="AVATAR_CACHE_MB", ge=0)
    """How many MiB of faces are kept; the least recently used go first. 0 keeps none."""
    batch_size: int = Field(8, alias="BATCH_SIZE", ge=1, le=64)
    """How many frames the networks take at once. Halved where memory is short; a job may ask for
    fewer."""
    device: DeviceName = Field("auto", alias="DEVICE")
    """Where the networks run. `auto` is CUDA where there is one, else the CPU, which `doctor` and
    RunPod's door take for a fault: say `cpu` if you mean it. With `cuda`, as in the image, the
    worker does not start without a GPU."""
    dtype: DtypeName = Field(DtypeName.AUTO, alias="DTYPE")
    """The precision of the networks. `auto` is `float16` on CUDA and `float32` elsewhere."""
    compile_networks: bool = Field(default=False, alias="COMPILE")
    """Compile the networks at the start: a slower start, faster jobs. May need a C
    compiler, which the image lacks."""
    compile_cache_dir: Annotated[Path | None, Words(unset="`compiled` in `AVATAR_CACHE_DIR`")] = (
        Field(None, alias="COMPILE_CACHE_DIR")
    )
    """Where compiled networks are remembered."""
    encoder: EncoderName = Field(EncoderName.AUTO, alias="ENCODER")
    """What encodes the picture. `auto` is NVENC where a trial at the start works, else
    `libx264`."""

    supervised: Annotated[bool, Words(values="`auto`, `true`, `false`", unset="`auto`")] = Field(
        default=False, alias="SUPERVISED"
    )
    """Whether the engine has a process of its own, so that a crash costs one job and not the
    worker. `auto` is `true` for `serve` and `local`, and `false` for the rest, where the platform
    replaces a worker that is broken."""

    b2_key_id: str | None = Field(None, alias="B2_KEY_ID")
    """The id of the bucket's key. Set all three of `B2_KEY_ID`, `B2_APP_KEY` and `B2_BUCKET_NAME`,
    or none."""
    b2_app_key: SecretStr | None = Field(None, alias="B2_APP_KEY")
    """The bucket's key."""
    b2_bucket_name: str | None = Field(None, alias="B2_BUCKET_NAME")
    """The bucket that videos and records go to. Not used if `OUTPUT_DIR` is set."""
    b2_prefix: str = Field("avatar/outputs", alias="B2_PREFIX")
    """What the names of objects begin with: `{B2_PREFIX}/{job id}.mp4`."""
    s3_endpoint_url: HostUrl = Field(
        # The cluster that the default OUTPUT_URL_TEMPLATE, f000, belongs to.
        "https://s3.us-west-000.backblazeb2.com",
        alias="S3_ENDPOINT_URL",
    )
    """The address of the store, Backblaze B2 or any other that speaks S3."""
    s3_region: str = Field("us-west-000", alias="S3_REGION")
    """The region that requests to the store are signed for."""
    output_url_template: UrlTemplate = Field(
        DEFAULT_OUTPUT_URL_TEMPLATE, alias="OUTPUT_URL_TEMPLATE"
    )
    """What `output_url` of a result is made of. It must lead to the bucket at
    `S3_ENDPOINT_URL`."""
    output_dir: Path | None = Field(None, alias="OUTPUT_DIR")
    """A directory that videos and records go to instead of a bucket."""

    job_timeout_sec: float = Field(1800, alias="JOB_TIMEOUT_SEC", gt=0)
    """Seconds that a job may take which brings no `deadline_seconds` of its own."""
    max_download_mb: int = Field(500, alias="MAX_DOWNLOAD_MB", ge=1)
    """The largest file that is fetched for a job, in MiB."""
    max_video_sec: float = Field(600, alias="MAX_VIDEO_SEC", gt=0)
    """The longest face video, in seconds."""
    max_audio_sec: float = Field(600, alias="MAX_AUDIO_SEC", gt=0)
    """The longest voice, in seconds."""
    max_pixels: int = Field(3840 * 2160, alias="MAX_PIXELS", ge=1)
    """The most pixels that a frame of the face may have: 4K, either way up. A still image may have
    six times as many."""
    max_fps: float = Field(120, alias="MAX_FPS", ge=1)
    """The highest frame rate of a face video."""
    stall_sec: float = Field(30, alias="STALL_SEC", gt=0)
    """Seconds without a byte after which a download, an upload, a decoder or an encoder is given
    up."""

    allow_http: bool = Field(default=False, alias="ALLOW_HTTP")
    """Take media from `http` URLs too. For tests and your own network."""
    allow_private_hosts: HostNames = Field(frozenset(), alias="ALLOW_PRIVATE_HOSTS")
    """Hosts that jobs may name although their addresses are private. All others are refused."""
    webhook_secret: SecretStr | None = Field(None, alias="WEBHOOK_SECRET")
    """What webhooks are signed with, as Standard Webhooks writes it: `whsec_` and base64. Without
    it none is sent."""

    otlp_endpoint: str | None = Field(None, alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    """Who collects spans of jobs; none are made without it. The exporter reads this and the other
    `OTEL_EXPORTER_OTLP_*` variables by itself."""

    host: str = Field("127.0.0.1", alias="HOST")
    """The address to listen on. `0.0.0.0` lets other machines reach the worker."""
    port: int = Field(8000, alias="PORT", ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    worker_token: HeaderSecret | None = Field(None, alias="WORKER_TOKEN")
    """What callers send as `Authorization: Bearer`. `serve` does not start without it where other
    machines can reach it; `local` then takes jobs over HTTP from its own machine only."""

    orchestrator_base_url: BaseUrl | None = Field(None, alias="ORCHESTRATOR_BASE_URL")
    """The orchestrator to claim jobs from. `local` does not start without it, or the next."""
    buffer_orchestrator_base_url: BaseUrl | None = Field(None, alias="BUFFER_ORCHESTRATOR_BASE_URL")
    """The same; it counts where both are set."""
    internal_api_key: HeaderSecret | None = Field(None, alias="INTERNAL_API_KEY")
    """The key to the orchestrator. `local` does not start without it."""
    poll_interval_sec: float = Field(5, alias="POLL_INTERVAL_SEC", gt=0)
    """Seconds between two claims of a main worker that got no job."""
    buffer_poll_interval_sec: float = Field(10, alias="BUFFER_POLL_INTERVAL_SEC", gt=0)
    """The same for a buffer worker."""
    buffer_capacity: int = Field(1, alias="BUFFER_CAPACITY", ge=1)
    """The capacity that heartbeats tell. The loop does one job at a time whatever it says."""
    spool_dir: Annotated[Path | None, Words(unset="`reports` in `AVATAR_CACHE_DIR`")] = Field(
        None, alias="SPOOL_DIR"
    )
    """Where the ends of jobs lie until the orchestrator has taken them. Put it on a volume that
    outlives the container."""

    drain_sec: float = Field(6, alias="DRAIN_SEC", ge=0)
    """Seconds for the job in hand after SIGTERM. The platform must wait for longer than that;
    `docker stop` kills after 10."""

    worker_id: Annotated[str, FirstOf(IDENTITY_VARIABLES), Words(unset="the host's name")]
    """What results, heartbeats and log lines call this worker."""
    gpu_class: Annotated[
        str | None, FirstOf(GPU_CLASS_VARIABLES), Words(unset="what the device calls itself")
    ] = None
    """What results and heartbeats call its GPU."""
    provider: str = Field("unknown", alias="PROVIDER")
    """Whose machine this is, for results and heartbeats. Modal's door says `modal` by itself."""
    git_commit: Commit | None = Field(None, alias="GIT_COMMIT")
    """The commit that runs, for results and heartbeats, where no image's build record says so."""
    image_digest: ImageDigest | None = Field(None, alias="IMAGE_DIGEST")
    """The digest of the image that runs, for results and heartbeats: no image holds its own, and
    no platform tells it."""
    image_id: str | None = Field(None, alias="MODAL_IMAGE_ID")
    """Set by Modal: what it calls the image that runs. It is no digest, and not told as one."""

    main_worker_id: str | None = Field(None, alias="WORKER_ID")
    """A name of the worker, see above. With `BUFFER_WORKER_ID` as well, one loop serves both
    queues, the buffer's first."""
    buffer_worker_id: str | None = Field(None, alias="BUFFER_WORKER_ID")
    """A name of the worker, see above. If set, jobs are claimed from the buffer's queue."""
    worker_type: str = Field("main", alias="WORKER_TYPE")
    """What claims and heartbeats of a main worker call its kind."""
    worker_mode: str = Field("queue", alias="WORKER_MODE")
    """`buffer` has jobs claimed from the buffer's queue only, whatever names are set."""

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
        given["worker_id"] = _first(env, IDENTITY_VARIABLES) or socket.gethostname()
        given["gpu_class"] = _first(env, GPU_CLASS_VARIABLES)
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


def _first(env: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((env[name] for name in names if env.get(name)), None)


def _explain(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in faults)
