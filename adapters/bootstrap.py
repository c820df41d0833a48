"""Put the worker together: the one place that knows what stands behind each port."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from adapters import __version__
from adapters.config import Config, ConfigError, EncoderName, EngineName
from adapters.transfer.fetch import HttpFetch
from adapters.transfer.guard import Policy
from adapters.transfer.local import DirectoryStore
from adapters.transfer.presigned import PresignedStore
from adapters.transfer.store import S3Store, s3_client
from adapters.transfer.webhook import Webhooks
from adapters.workspace import Workspaces
from handler.errors import ToolMissing
from handler.ports import Fetch, Runtime, Store
from handler.result import Worker
from inference.avatar_cache import AvatarCache
from inference.engine import LipSync
from inference.media.encoder import Encoder, choose_encoder
from inference.media.limits import Limits
from inference.media.probe import FfprobeGate
from inference.memory import return_freed_memory
from inference.parts import Parts
from inference.preview import preview_parts
from inference.weights import FETCH_COMMAND, WeightsError, missing_weights

MEGABYTE = 1024**2

#: An engine that was read; calling it brings it to its device, the other half of a cold start.
ReadEngine = Callable[[], Parts]


def read_engine(config: Config) -> ReadEngine:
    """Do the half of a cold start that needs no GPU and touches none.

    This half and the returned one raise :class:`ConfigError`, with what to do about it.
    """
    return ENGINES[config.engine](config)


def bootstrap(
    config: Config,
    fetch: Fetch | None = None,
    store: Store | None = None,
    engine: ReadEngine | None = None,
) -> Runtime:
    """Build all that outlives a job; ``fetch`` and ``store`` replace those of the configuration.

    An ``engine`` that was read before is not read again. Raises :class:`ConfigError` if the
    configuration cannot work, with what to do about it.
    """
    started = time.monotonic()
    return_freed_memory()
    limits = _limits(config)
    parts = (engine or read_engine(config))()
    cache = AvatarCache(config.avatar_cache_dir, config.avatar_cache_mb * MEGABYTE)
    workspaces = _workspaces()
    return Runtime(
        engine=LipSync(parts, cache, limits, _encoder(config, limits)),
        fetch=fetch or web_fetch(config),
        store=store or PresignedStore(_policy(config), _own_store(config)),
        probe=FfprobeGate(limits),
        workspace=workspaces,
        notify=_webhooks(config),
        clock=time.monotonic,
        worker=Worker(
            version=__version__,
            engine=parts.name,
            weights=parts.weights,
            worker_id=config.worker_id,
            provider=config.provider,
            cold_start_sec=round(time.monotonic() - started, 3),
        ),
        gpu_class=config.gpu_class or parts.device,
        job_timeout_seconds=config.job_timeout_sec,
    )


def _workspaces() -> Workspaces:
    try:
        workspaces = Workspaces()
    except OSError as error:
        raise ConfigError(f"No place for the files of jobs, see TMPDIR: {error}") from error
    workspaces.sweep()
    return workspaces


def web_fetch(config: Config) -> Fetch:
    """Build what brings in media from URLs."""
    return HttpFetch(
        _policy(config),
        max_bytes=config.max_download_mb * MEGABYTE,
        stall_seconds=config.stall_sec,
    )


def _preview(_: Config) -> ReadEngine:
    return preview_parts


def _musetalk(config: Config) -> ReadEngine:
    if missing := missing_weights(config.weights_dir):
        files = "; ".join(f"{file.path} from {file.repository}" for file in missing)
        raise ConfigError(
            f"MUSETALK_WEIGHTS_DIR={config.weights_dir} lacks {files}. Run"
            f" `{FETCH_COMMAND}`, or set MUSETALK_ENGINE=preview to try the worker without networks"
            " (no real lip-sync)."
        )
    try:
        # PyTorch takes seconds to import, and the preview does without it.
        from inference.musetalk.device import Device
        from inference.musetalk.parts import musetalk_parts, read_musetalk
    except ImportError as error:
        raise ConfigError(
            f"MUSETALK_ENGINE is musetalk, and {error.name} is not installed: install the worker as"
            " musetalk-worker[musetalk], or set MUSETALK_ENGINE=preview to try it without networks"
            " (no real lip-sync)."
        ) from error
    with _weights_faults(config):
        read = read_musetalk(config.weights_dir)

    def parts() -> Parts:
        try:
            device = Device.choose(config.device, config.dtype)
        except ValueError as error:
            raise ConfigError(f"DEVICE={config.device}: {error}") from error
        with _weights_faults(config):
            return musetalk_parts(read, device, config.batch_size, _compiled(config))

    return parts


@contextmanager
def _weights_faults(config: Config) -> Iterator[None]:
    try:
        yield
    except WeightsError as error:
        raise ConfigError(f"MUSETALK_WEIGHTS_DIR={config.weights_dir}: {error}") from error


def _compiled(config: Config) -> Path | None:
    if not config.compile_networks:
        return None
    return config.compile_cache_dir or config.avatar_cache_dir / "compiled"


#: Every engine that a worker can be told to use; a new one is one line here.
ENGINES: Mapping[EngineName, Callable[[Config], ReadEngine]] = {
    EngineName.MUSETALK: _musetalk,
    EngineName.PREVIEW: _preview,
}


#: The encoder that each name stands for; None is left to a trial.
ENCODERS: Mapping[EncoderName, Encoder | None] = {
    EncoderName.AUTO: None,
    EncoderName.NVENC: Encoder.NVENC,
    EncoderName.LIBX264: Encoder.LIBX264,
}


def _encoder(config: Config, limits: Limits) -> Encoder:
    try:
        return choose_encoder(ENCODERS[config.encoder], limits)
    except ToolMissing as error:
        raise ConfigError(f"ENCODER={config.encoder}: {error}") from error


def _limits(config: Config) -> Limits:
    return Limits(
        max_pixels=config.max_pixels,
        max_fps=config.max_fps,
        max_video_seconds=config.max_video_sec,
        max_audio_seconds=config.max_audio_sec,
        stall_seconds=config.stall_sec,
    )


def _policy(config: Config) -> Policy:
    return Policy(config.allow_http, config.allow_private_hosts)


def _webhooks(config: Config) -> Webhooks:
    try:
        return Webhooks(_policy(config), _revealed(config.webhook_secret))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _own_store(config: Config) -> Store | None:
    """Return where this worker puts videos whose jobs bring no place of their own."""
    if config.output_dir is not None:
        return DirectoryStore(config.output_dir)
    if config.b2_bucket_name is None:
        return None
    client = s3_client(
        config.s3_endpoint_url,
        config.s3_region,
        config.b2_key_id or "",
        _revealed(config.b2_app_key) or "",
    )
    return S3Store(client, config.b2_bucket_name, config.b2_prefix, config.output_url_template)


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
