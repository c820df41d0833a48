"""What exactly a worker runs: what its image was built of, and what it was told and found out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from adapters import __version__
from adapters.config import Config, ConfigError
from adapters.supervision.loaded import EngineFacts
from handler.result import CONTRACT_VERSION, Worker

#: Where ``build/build_record.py`` leaves its record in an image.
BUILD_RECORD = Path("/etc/musetalk/build.json")


class BuildRecord(BaseModel):
    """Hold what an image was built of, as far as results tell it."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    #: It grows when a field changes its meaning, so no other is understood.
    format: Literal[1]
    git_commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None
    lock_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Say what opens and writes media."""

    #: Its version; None if there is none.
    ffmpeg: str | None
    #: None if that could not be found out.
    isolation: str | None


def read_record(path: Path | None = BUILD_RECORD) -> BuildRecord | None:
    """Return what the image was built of; None outside of an image, and without a path.

    Raises :class:`ConfigError` if the record is there and cannot be believed.
    """
    # Not overlooked: the record is the same in every container of an image, so a damaged one is
    # noticed at the first, while an image that cannot say what it is would be noticed by nobody.
    if path is None:
        return None
    try:
        return BuildRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise _damaged(path, ": ".join([*map(str, fault["loc"]), fault["msg"]])) from None


def _damaged(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} does not say what this image was built of: {reason}. Build the image anew, or"
        " remove the file: results then have no git_commit."
    )


def identify(
    config: Config,
    facts: EngineFacts,
    tools: Tools,
    record: BuildRecord | None,
    cold_start_sec: float | None = None,
) -> Worker:
    """Return what every result, ``/health`` and the heartbeats say of the worker."""
    return Worker(
        contract=CONTRACT_VERSION,
        version=__version__,
        git_commit=(record and record.git_commit) or config.git_commit,
        image_digest=config.image_digest,
        image_id=config.image_id,
        lock_sha256=record.lock_sha256 if record else None,
        engine=facts.name,
        weights=facts.weights,
        torch=facts.torch,
        cuda=facts.cuda,
        face_tracker=facts.face_tracker,
        ffmpeg=tools.ffmpeg,
        isolation=tools.isolation,
        worker_id=config.worker_id,
        provider=config.provider,
        cold_start_sec=cold_start_sec,
    )


def tracks_slowly(worker: Worker) -> bool:
    """Tell whether faces are found on the CPU though the networks have a GPU.

    ONNX Runtime takes the CPU without a word where it lacks a library for the GPU.
    """
    return worker.cuda is not None and worker.face_tracker == "cpu"
