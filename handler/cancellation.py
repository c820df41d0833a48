"""Take a job back while it runs."""

from __future__ import annotations

from handler.errors import Cancelled
from handler.progress import Progress, Report, ignore


class Cancellation:
    """A :data:`Report` that passes progress on until somebody, in any thread, cancels."""

    def __init__(self, listen: Report = ignore) -> None:
        """Pass progress on to ``listen``."""
        self._listen = listen
        self._reason: str | None = None

    @property
    def requested(self) -> bool:
        """Tell whether the job was taken back."""
        return self._reason is not None

    def request(self, reason: str) -> None:
        """Have the job end with :class:`Cancelled` at its next tick; the first reason counts."""
        self._reason = self._reason or reason

    def __call__(self, progress: Progress) -> None:
        """Pass progress on; raise :class:`Cancelled` if the job was taken back."""
        if self._reason is not None:
            raise Cancelled(self._reason)
        self._listen(progress)
