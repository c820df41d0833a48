"""Look at what a worker needs, start one, and say why it could not take a job."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapters import __version__
from adapters.bootstrap import (
    LIMITS_ADVICE,
    TRACKER_ADVICE,
    UNBOUND,
    ReadEngine,
    bootstrap,
    find_tools,
    located,
)
from adapters.config import Config, ConfigError, EngineName
from adapters.diagnosis import Diagnosis, Finding
from adapters.gpu import examine_gpu
from adapters.identity import BUILD_RECORD, Tools, identify, read_record, tracks_slowly
from adapters.supervision.loaded import EngineFacts
from handler.errors import ToolMissing
from handler.ports import Runtime
from handler.redaction import redact
from handler.result import CONTRACT_VERSION, Worker
from inference.media.child import ChildFailed
from inference.media.isolation import Isolation, probe_isolation
from inference.media.tools import ffmpeg_version, missing_codecs
from inference.weights import FETCH_COMMAND, VERIFY_COMMAND, WeightsError, missing_weights

__all__ = ["Finding", "examine", "examine_surroundings", "misconfigured"]

MEBIBYTE, GIBIBYTE = 1024**2, 1024**3
#: A face and a voice each, of two jobs at once, as most doors take them.
FILES_AT_ONCE = 4
#: What children have besides, wherever the worker runs.
ALWAYS_HELD = "process groups, empty environment, whitelists"
#: Enough of a commit or a digest to know it by; --json has all.
KNOWN_BY_DIGITS = 12


def examine(
    config: Config, engine: ReadEngine | None = None, record: Path | None = BUILD_RECORD
) -> Diagnosis:
    """Return a finding on everything that a job passes through, and what the worker is.

    A worker is started as a door would start it, but in this process; ``engine`` and ``record``
    are those of :func:`bootstrap`. No store, orchestrator or other machine is asked.
    """
    fault = _record_fault(record)
    believed = None if fault else record
    weights = _weights(config)
    # Without weights there is nothing else to be learnt.
    started = _start(config, engine, believed) if weights.fine else None
    worker = started.worker if isinstance(started, Runtime) else _unstarted(config, believed)
    findings = (
        *examine_surroundings(config),
        weights,
        *_engine(started),
        _disk(config),
        _directory("cache", config.avatar_cache_dir, "AVATAR_CACHE_DIR"),
        *_orchestrator(config),
        fault or _identity(worker),
    )
    return Diagnosis(worker.model_dump(mode="json"), findings)


def examine_surroundings(config: Config) -> Sequence[Finding]:
    """Return findings on what no job can do without, but for the engine, which takes long."""
    needed = config.engine is not EngineName.PREVIEW and config.device != "cpu"
    gpu = examine_gpu(needed=needed)
    python = Finding("python", fine=True, text=platform.python_version())
    return (python, _ffmpeg(), gpu, _storage(config), _isolation())


def misconfigured(error: ConfigError, record: Path | None = BUILD_RECORD) -> Diagnosis:
    """Return what can be said where the settings cannot be read."""
    fault = _record_fault(record)
    built = None if fault else read_record(record)
    known = built.model_dump(include={"git_commit", "lock_sha256"}) if built else {}
    known |= {"version": __version__, "contract": CONTRACT_VERSION}
    settings = Finding("settings", fine=False, text=f"{error}", remedy="set it right, or unset it")
    findings = [settings, fault] if fault else [settings]
    return Diagnosis(dict.fromkeys(Worker.model_fields) | known, findings)


# -- the worker itself -----------------------------------------------------------------------------


def _start(config: Config, engine: ReadEngine | None, record: Path | None) -> Runtime | Finding:
    try:
        with tempfile.TemporaryDirectory() as place:
            return bootstrap(_for_trial(config, Path(place)), engine=engine, record=record)
    except ConfigError as error:
        remedy = "change what it names, then ask again"
        return Finding("settings", fine=False, text=f"{error}", remedy=remedy)
    except Exception as error:  # noqa: BLE001 - whatever it is, it keeps the worker from its jobs
        text = redact(f"{type(error).__name__}: {error}")
        remedy = f"see whether another process has the GPU (nvidia-smi), then `{VERIFY_COMMAND}`"
        return Finding("engine", fine=False, text=text, remedy=remedy)


def _for_trial(config: Config, place: Path) -> Config:
    """Return the settings of a worker that leaves nothing behind where another user's will work.

    Compiling would take minutes where the cache of it is not the real one.
    """
    changes = {"supervised": False, "avatar_cache_dir": place, "compile_networks": False}
    return config.model_copy(update=changes)


def _unstarted(config: Config, record: Path | None) -> Worker:
    """Return what is known of a worker that did not start."""
    try:
        tools = find_tools()
    except ConfigError:
        tools = Tools(ffmpeg=None, isolation=None)
    facts = EngineFacts(name=config.engine, weights=None, device="unknown")
    return identify(config, facts, tools, read_record(record))


def _engine(started: Runtime | Finding | None) -> Iterator[Finding]:
    if isinstance(started, Finding):
        yield started
    elif started:
        worker = started.worker
        facts = (
            worker.engine,
            worker.weights and f"weights {worker.weights}",
            worker.torch and f"PyTorch {worker.torch}",
            worker.cuda and f"CUDA {worker.cuda}",
            f"on {started.gpu_class}",
        )
        yield Finding("engine", fine=True, text=", ".join(filter(None, facts)))
        yield _faces(worker)


def _faces(worker: Worker) -> Finding:
    if not tracks_slowly(worker):
        return Finding("faces", fine=True, text=f"tracked on {worker.face_tracker}")
    # It would take jobs all the same. Nobody who pays for a GPU wants them to take so long.
    text = "tracked on the CPU, though the engine has a GPU: every job takes far longer"
    return Finding("faces", fine=False, text=text, remedy=TRACKER_ADVICE)


def _weights(config: Config) -> Finding:
    if config.engine is EngineName.PREVIEW:
        return Finding("weights", fine=True, text="none, and none are needed")
    try:
        directory = located(config).weights_dir
        missing = missing_weights(directory)
    except (ConfigError, WeightsError) as error:
        remedy = "let this user read the directory"
        return Finding("weights", fine=False, text=f"{error}", remedy=remedy)
    if not missing:
        return Finding("weights", fine=True, text=f"all files are in {directory}")
    files = ", ".join(file.path for file in missing)
    remedy = f"run `{FETCH_COMMAND}`, or try the worker with MUSETALK_ENGINE=preview"
    return Finding("weights", fine=False, text=f"{directory} lacks {files}", remedy=remedy)


# -- what it stands on -----------------------------------------------------------------------------


def _ffmpeg() -> Finding:
    remedy = "install ffmpeg with its usual codecs (apt-get install ffmpeg)"
    try:
        version, missing = ffmpeg_version(), missing_codecs()
    except (ToolMissing, ChildFailed) as error:
        return Finding("ffmpeg", fine=False, text=f"{error}", remedy=remedy)
    if missing:
        text = f"{version}, which lacks {', '.join(missing)}"
        return Finding("ffmpeg", fine=False, text=text, remedy=remedy)
    return Finding("ffmpeg", fine=True, text=f"{version}, all codecs")


def _isolation() -> Finding:
    try:
        level = probe_isolation()
    except ChildFailed as error:
        return Finding("isolation", fine=False, text=f"{UNBOUND}: {error}", remedy=LIMITS_ADVICE)
    bounds = "resource limits" if level is Isolation.RLIMIT else "no prlimit, no resource limits"
    return Finding("isolation", fine=True, text=f"{level}: {bounds}; {ALWAYS_HELD}")


def _storage(config: Config) -> Finding:
    if config.output_dir is not None:
        return _directory("storage", config.output_dir, "OUTPUT_DIR")
    if config.b2_bucket_name is not None:
        return Finding("storage", fine=True, text=f"{config.storage}, as configured")
    remedy = "set B2_KEY_ID, B2_APP_KEY and B2_BUCKET_NAME, or OUTPUT_DIR"
    return Finding("storage", fine=False, text=config.storage, remedy=remedy)


def _disk(config: Config) -> Finding:
    """Look for room for what a job may bring; what becomes of it is smaller."""
    place = Path(tempfile.gettempdir())
    free, needed = shutil.disk_usage(place).free, FILES_AT_ONCE * config.max_download_mb * MEBIBYTE
    text = f"{free / GIBIBYTE:.1f} GiB are free in {place}"
    if free < needed:
        most = f"MAX_DOWNLOAD_MB={config.max_download_mb}"
        text += f": {FILES_AT_ONCE} files of {most}, two jobs, find no room"
        remedy = "make room, let TMPDIR name a larger disk, or lower MAX_DOWNLOAD_MB"
        return Finding("disk", fine=False, text=text, remedy=remedy)
    return Finding("disk", fine=True, text=text)


def _directory(subject: str, directory: Path, variable: str) -> Finding:
    """Look whether files can be put into a directory, which need not exist yet."""
    obstacle = _obstacle(directory)
    if obstacle is None:
        return Finding(subject, fine=True, text=f"directory {directory}")
    remedy = f"make it writable for user {os.getuid()}, or let {variable} name another"
    text = f"directory {directory} cannot be written: {obstacle}"
    return Finding(subject, fine=False, text=text, remedy=remedy)


def _obstacle(directory: Path) -> str | None:
    for standing in (directory, *directory.absolute().parents):
        try:
            mode = standing.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return error.strerror
        if not stat.S_ISDIR(mode):
            return f"{standing} is a file"
        break
    return None if os.access(standing, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)


def _orchestrator(config: Config) -> Iterator[Finding]:
    address = config.buffer_orchestrator_base_url or config.orchestrator_base_url
    if address is None and config.internal_api_key is None:
        text = "none: only the poll loop (`local`) needs one"
        yield Finding("orchestrator", fine=True, text=text)
    elif address is None:
        text = "a key and no address (ORCHESTRATOR_BASE_URL): `local` would not start"
        yield Finding("orchestrator", fine=True, text=text)
    elif config.internal_api_key is None:
        remedy = "set INTERNAL_API_KEY, or unset the address"
        yield Finding("orchestrator", fine=False, text=f"{address} and no key", remedy=remedy)
    else:
        yield Finding("orchestrator", fine=True, text=f"{address} with a key, as configured")
    if address is not None:
        # Where nothing is said, it is below the cache.
        yield _directory("spool", config.spool_dir or config.avatar_cache_dir, "SPOOL_DIR")


# -- who it is -------------------------------------------------------------------------------------


def _record_fault(record: Path | None) -> Finding | None:
    try:
        read_record(record)
    except ConfigError as error:
        return Finding("identity", fine=False, text=f"{error}", remedy="build the image anew")
    return None


def _identity(worker: Worker) -> Finding:
    commit = worker.git_commit[:KNOWN_BY_DIGITS] if worker.git_commit else "not on record"
    digest = (worker.image_digest or "")[: len("sha256:") + KNOWN_BY_DIGITS]
    image = digest or worker.image_id or "not told (IMAGE_DIGEST)"
    text = f"{worker.version}, contract {worker.contract}, commit {commit}, image {image}"
    return Finding("identity", fine=True, text=text)
