"""Look at what a worker needs, and say in a line each what is there and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.bootstrap import read_engine
from adapters.config import Config, ConfigError, EngineName
from handler.errors import ToolMissing
from inference.media.child import ChildFailed
from inference.media.tools import ffmpeg_version, missing_codecs

#: A healthy driver answers at once; a hung one never.
GPU_PATIENCE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """Say how one thing stands; a worker takes jobs only if all are fine."""

    subject: str
    fine: bool
    text: str


def examine(config: Config) -> Sequence[Finding]:
    """Return a finding on everything that a job passes through."""
    return (*examine_surroundings(config), _engine(config))


def examine_surroundings(config: Config) -> Sequence[Finding]:
    """Return a finding on everything but the engine, which alone takes long to load."""
    return (
        Finding("python", fine=True, text=platform.python_version()),
        _ffmpeg(),
        _gpu(config),
        _storage(config),
        _isolation(),
    )


def _ffmpeg() -> Finding:
    try:
        version, missing = ffmpeg_version(), missing_codecs()
    except (ToolMissing, ChildFailed) as error:
        return Finding("ffmpeg", fine=False, text=str(error))
    lacks = f"; lacks {', '.join(missing)}" if missing else "; all codecs"
    return Finding("ffmpeg", fine=not missing, text=version + lacks)


def _engine(config: Config) -> Finding:
    try:
        parts = read_engine(config)()
    except ConfigError as error:
        return Finding("engine", fine=False, text=str(error))
    return Finding("engine", fine=True, text=f"{parts.name}, weights: {parts.weights or 'none'}")


def _gpu(config: Config) -> Finding:
    """Ask the driver's own tool: it answers without torch, and hangs at most for a while."""
    idle = config.engine is EngineName.PREVIEW or config.device == "cpu"
    tool = shutil.which("nvidia-smi")
    if tool is None:
        text = "none, and none is needed" if idle else "none: no NVIDIA driver found"
        return Finding("gpu", fine=idle, text=text)
    question = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            question, capture_output=True, text=True, timeout=GPU_PATIENCE_SECONDS, check=True
        )
    except (subprocess.SubprocessError, OSError) as error:
        return Finding("gpu", fine=idle, text=f"the driver does not answer: {error}")
    return Finding("gpu", fine=True, text=answer.stdout.strip().replace("\n", "; "))


def _storage(config: Config) -> Finding:
    if config.output_dir is not None:
        fine = _can_be_written(config.output_dir)
        text = f"directory {config.output_dir}{'' if fine else ', which cannot be written'}"
        return Finding("storage", fine=fine, text=text)
    if config.b2_bucket_name is not None:
        place = f"bucket {config.b2_bucket_name} at {config.s3_endpoint_url}, as configured"
        return Finding("storage", fine=True, text=place)
    text = "none: set B2_KEY_ID, B2_APP_KEY and B2_BUCKET_NAME, or OUTPUT_DIR"
    return Finding("storage", fine=False, text=text)


def _can_be_written(directory: Path) -> bool:
    """Tell whether files can be put into a directory, which need not exist yet."""
    standing = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    return standing.is_dir() and os.access(standing, os.W_OK | os.X_OK)


def _isolation() -> Finding:
    bounds = "resource limits, " if shutil.which("prlimit") else "no resource limits (no prlimit), "
    text = f"{bounds}process groups, empty environment, format and codec whitelists"
    return Finding("isolation", fine=True, text=text)
