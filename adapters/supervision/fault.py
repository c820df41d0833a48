"""An error on its way from one process to another: never pickled, for it may be a stranger's."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from adapters.config import ConfigError
from handler import errors
from handler.errors import ErrorType, OutOfMemory, Stage, WorkerBroken, WorkerError
from handler.redaction import redact_all

#: What both sides know by its name.
SHARED: Mapping[str, type[Exception]] = {
    name: kind
    for name, kind in (*vars(errors).items(), (ConfigError.__name__, ConfigError))
    if isinstance(kind, type) and issubclass(kind, Exception)
}
#: Errors that say whose fault they are: nothing is wrong with the engine.
BLAMELESS = frozenset({ErrorType.MEDIA, ErrorType.CANCELLED})


class UnforeseenError(Exception):
    """The engine raised something that it should not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Hold what can be told of an error."""

    #: The name of its class, or of the nearest class above it that both sides know.
    kind: str
    message: str
    #: Its stack, as text.
    trace: str
    details: Mapping[str, Any]
    stage: Stage | None
    retryable: bool

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Tell of an error what the other side can understand."""
        trace = "".join(traceback.format_exception(error))
        if isinstance(error, MemoryError):
            error = OutOfMemory("The job does not fit into this worker's memory.")
        known = error if isinstance(error, WorkerError) else None
        return cls(
            kind=next((base.__name__ for base in type(error).__mro__ if _shared(base)), ""),
            message=str(error) if _shared(type(error)) else f"{type(error).__name__}: {error}",
            trace=trace,
            details=redact_all(known.details) if known else {},
            stage=known.stage if known else None,
            retryable=known.retryable if known else False,
        )

    @property
    def broken(self) -> bool:
        """Tell whether the process can do no further job."""
        return self.kind == WorkerBroken.__name__

    @property
    def blameless(self) -> bool:
        """Tell whether the engine has done what it should."""
        return issubclass(self._class, WorkerError) and self._class.error_type in BLAMELESS

    def error(self) -> Exception:
        """Return the error, of its own class if both sides know that; its stack is a note."""
        error: Exception = self._class.__new__(self._class, self.message)
        if isinstance(error, WorkerError):
            # Each class has arguments of its own, and what became of them is known already.
            WorkerError.__init__(error, self.message, stage=self.stage, **self.details)
            error.retryable = self.retryable
        error.add_note(f"In the engine's process:\n{self.trace}")
        return error

    @property
    def _class(self) -> type[Exception]:
        return SHARED.get(self.kind, UnforeseenError)


def _shared(kind: type) -> bool:
    return SHARED.get(kind.__name__) is kind
