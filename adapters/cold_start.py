"""The start of a worker: what may go wrong, and what an operator asks about once it is over."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from adapters.config import Config, ConfigError
from adapters.log import Log
from handler.ports import Runtime
from handler.redaction import redact


def start(load: Callable[[], Runtime], log: Log) -> Runtime:
    """Load; raise :class:`ConfigError`, with what to tell the operator, whatever goes wrong."""
    try:
        return load()
    except ConfigError:
        raise
    except Exception as error:
        stack = "".join(traceback.format_exception(error))
        log.error("cannot start", stack_trace=stack)  # noqa: TRY400 - one line
        reason = redact(f"{type(error).__name__}: {error}")
        raise ConfigError(f"The engine cannot be loaded: {reason}") from error


def facts(config: Config, runtime: Runtime) -> dict[str, Any]:
    """Return what is worth a line of the log when the worker is ready; no secrets."""
    return {
        **runtime.worker.model_dump(exclude={"worker_id", "provider"}),
        "gpu_class": runtime.gpu_class,
        "supervised": config.supervised,
        "storage": config.storage,
        "drain_seconds": config.drain_sec,
    }
