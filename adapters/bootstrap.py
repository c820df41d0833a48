"""Put the worker together: the one place that knows what stands behind each port."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from adapters.config import Config, ConfigError, EncoderName, EngineName
from adapters.identity import BUILD_RECORD, Tools, identify, read_record, tracks_slowly
from adapters.journal import DiskJournal
from adapters.log import Log, open_log
from adapters.storage import open_storage
from adapters.supervised import SupervisedEngine
from adapters.supervision.loaded import CheckedEngine, EngineFacts
from adapters.transfer.fetch import HttpFetch
from adapters.transfer.guard import Policy
from adapters.transfer.webhook import Webhooks
from adapters.workspace import Workspaces
from handler.errors import ToolMissing
from handler.fingerprint import fingerprint
from handler.ports import Engine, Fetch, NoRecords, Observe, Runtime, Store, overlook
from handler.result import Worker
from inference.avatar_cache import AvatarCache
from inference.engine import LipSync
from inference.media.child import ChildFailed
from inference.media.encoder import Encoder, choose_encoder
from inference.media.isolation import probe_isolation
from inference.media.limits import Limits
from inference.media.probe import FfprobeGate
from inference.media.tools import ffmpeg_version
from inference.memory import return_freed_memory
from inference.parts import Parts
from inference.preview import preview_parts
from inference.weights import FETCH_COMMAND, WeightsError, locate_weights, missing_weights
from inference.weights.readahead import reading_ahead

MEBIBYTE = 1024**2

#: What to do where ONNX Runtime leaves the GPU alone.
TRACKER_ADVICE = (
    "install onnxruntime-gpu, in place of onnxruntime, with the CUDA and cuDNN that it was made for"
)

#: What is wrong, and what to do, where children cannot be held as they should.
UNBOUND = "prlimit cannot bound the programs that open media"
LIMITS_ADVICE = "start the container without lower limits of its own (docker run --ulimit)"

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
    record: Path | None = BUILD_RECORD,
) -> Runtime:
    """Build all that outlives a job; ``fetch`` and ``store`` replace those of the configuration.

    An ``engine`` that was read before is not read again; one that is to have a process of its own
    is read there. ``record`` is where an image says what it was built of. Raises
    :class:`ConfigError` if the configuration cannot work, with what to do about it.
    """
    started = time.monotonic()
    log = open_log(worker_id=config.worker_id, provider=config.provider)
    # What takes a moment comes first: an engine is loaded in vain where that goes wrong.
    built, tools = read_record(record), find_tools()
    if tools.ffmpeg is None:
        log.warning("no ffmpeg: every job will fail", advice="install it, and ask `doctor`")
    workspaces, notify = _workspaces(), _webhooks(config, log)
    film, facts = _supervised(config, log) if config.supervised else load_engine(config, engine)
    tell_apart = partial(fingerprint, engine=facts.name, weights=facts.weights)
    policy = _policy(config)
    store, records = (store, NoRecords()) if store else open_storage(config, policy, tell_apart)
    worker = identify(config, facts, tools, built, round(time.monotonic() - started, 3))
    if tracks_slowly(worker):
        log.warning("faces are tracked on the CPU", advice=TRACKER_ADVICE)
    return Runtime(
        engine=film,
        fetch=fetch or web_fetch(config),
        store=store,
        probe=FfprobeGate(_limits(config)),
        workspace=workspaces,
        notify=notify,
        clock=time.monotonic,
        worker=worker,
        gpu_class=config.gpu_class or facts.device,
        job_timeout_seconds=config.job_timeout_sec,
        records=records,
        journal=DiskJournal(config.avatar_cache_dir / "journal"),
        observe=_telemetry(config, worker),
    )


def load_engine(
    config: Config, engine: ReadEngine | None = None
) -> tuple[CheckedEngine[Any], EngineFacts]:
    """Load the engine into this process; raise :class:`ConfigError` if it cannot work."""
    return_freed_memory()
    limits = _limits(config)
    parts = (engine or read_engine(config))()
    cache = AvatarCache(config.avatar_cache_dir, config.avatar_cache_mb * MEBIBYTE)
    film = LipSync(parts, cache, limits, _encoder(config, limits))
    return film, EngineFacts(
        name=parts.name,
        weights=parts.weights,
        device=parts.device,
        torch=parts.torch,
        cuda=parts.cuda,
        face_tracker=parts.tracker_device,
    )


def find_tools() -> Tools:
    """Ask the programs that open and write media what they are, and what holds them.

    Raises :class:`ConfigError` if they cannot be held as they should: no job could be done.
    """
    try:
        isolation = probe_isolation()
    except ChildFailed as error:
        raise ConfigError(f"{UNBOUND}: {error}. To mend it, {LIMITS_ADVICE}.") from error
    try:
        return Tools(ffmpeg=ffmpeg_version(), isolation=isolation)
    except (ToolMissing, ChildFailed):
        # Each job that needs it says so: the next image may bring it back.
        return Tools(ffmpeg=None, isolation=isolation)


def _supervised(config: Config, log: Log) -> tuple[Engine[Any], EngineFacts]:
    engine = SupervisedEngine(
        partial(load_engine, config.without_secrets()),
        tell=lambda reason: log.warning("engine replaced", reason=reason),
    )
    return engine, engine.facts


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
        max_bytes=config.max_download_mb * MEBIBYTE,
        stall_seconds=config.stall_sec,
    )


def _preview(_: Config) -> ReadEngine:
    return preview_parts


def _musetalk(config: Config) -> ReadEngine:
    config = located(config)
    with _weights_faults(config):
        missing = missing_weights(config.weights_dir)
    if missing:
        files = "; ".join(f"{file.path} from {file.repository}" for file in missing)
        raise ConfigError(
            f"MUSETALK_WEIGHTS_DIR={config.weights_dir} lacks {files}. Run"
            f" `{FETCH_COMMAND}`, or set MUSETALK_ENGINE=preview to try the worker without networks"
            " (no real lip-sync)."
        )
    with _weights_faults(config), _installed(), reading_ahead(config.weights_dir):
        # PyTorch takes seconds to import, and the preview does without it.
        from inference.musetalk.device import Device
        from inference.musetalk.parts import musetalk_parts, read_musetalk

        read = read_musetalk(config.weights_dir)

    def parts() -> Parts:
        try:
            device = Device.choose(config.device, config.dtype)
        except ValueError as error:
            raise ConfigError(f"DEVICE={config.device}: {error}") from error
        with _weights_faults(config):
            return musetalk_parts(read, device, config.batch_size, _compiled(config))

    return parts


def located(config: Config) -> Config:
    """Return the settings with the directory of the weights, where nobody has said which it is.

    Raises :class:`ConfigError` if this user may not look.
    """
    if "weights_dir" in config.model_fields_set:
        return config
    with _weights_faults(config):
        return config.model_copy(update={"weights_dir": locate_weights(config.weights_dir)})


@contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"MUSETALK_ENGINE is musetalk, and {error.name} is not installed: install the worker as"
            " musetalk-worker[musetalk], or set MUSETALK_ENGINE=preview to try it without networks"
            " (no real lip-sync)."
        ) from error


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


def _telemetry(config: Config, worker: Worker) -> Observe:
    """Return what sends spans of jobs, if there is anybody to send them to."""
    if config.otlp_endpoint is None:
        return overlook
    try:
        # A third of a second that a worker without a collector need not spend.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from adapters.telemetry import FLUSH_SECONDS, Spans
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, and {error.name} is not installed: install the"
            " worker as musetalk-worker[telemetry]."
        ) from error
    return Spans(OTLPSpanExporter(timeout=FLUSH_SECONDS), worker)


def _webhooks(config: Config, log: Log) -> Webhooks:
    secret = config.webhook_secret
    try:
        return Webhooks(_policy(config), secret.get_secret_value() if secret else None, log)
    except ValueError as error:
        raise ConfigError(str(error)) from error
