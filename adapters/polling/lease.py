"""The job in hand: how far it is, and what may end it before its time."""

from __future__ import annotations

from collections.abc import Callable

from adapters.orchestrator import Message
from adapters.polling.queues import Claimed, Queue
from handler.errors import Cancelled, ProcessingError, WorkerError
from handler.progress import Phase, Progress
from handler.result import Result

#: The end is told by the last report, and by nothing else.
_ENDINGS = frozenset({Phase.COMPLETED, Phase.FAILED})


class Lease:
    """Receives the progress of a claimed job, and ends the job once it is not ours any more."""

    def __init__(self, queue: Queue, claimed: Claimed, wake: Callable[[], None]) -> None:
        """Call ``wake`` whenever there is news."""
        self._queue = queue
        self._wake = wake
        self._latest: Progress | None = None
        self._end: WorkerError | None = None
        self.claimed = claimed
        #: Whether there is anything that was not told yet.
        self.has_news = False
        #: Whether somebody else has the job: then nobody wants to hear of it.
        self.lost = False

    def __call__(self, progress: Progress) -> None:
        """Note how far the job is; raise what is to end it.

        Nothing here waits: the news is told by another thread, and only the latest.
        """
        if self._end is not None:
            raise self._end
        if progress.phase in _ENDINGS:
            return
        before, self._latest = self._latest, progress
        if before is None or _percent(progress) != _percent(before):
            self.has_news = True
            self._wake()

    def news(self) -> Message | None:
        """Return how far the job is, if it has begun; what came before is of no interest."""
        self.has_news = False
        return self._queue.running(self.claimed, self._latest) if self._latest else None

    def ended(self, result: Result) -> Message:
        """Return what is to be told of the end."""
        fraction = self._latest.fraction if self._latest else 0.0
        return self._queue.ended(self.claimed, result, fraction)

    def lose(self, reason: str) -> None:
        """Have the job end at its next tick, unreported: it is somebody else's now."""
        self.lost = True
        self._end = Cancelled(reason)

    def give_back(self, reason: str) -> None:
        """Have the job end at its next tick, to be done by another worker."""
        self._end = self._end or ProcessingError(reason)


def _percent(progress: Progress) -> tuple[Phase, int]:
    return progress.phase, int(100 * progress.fraction)
