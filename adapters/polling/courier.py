"""One thread that tells the orchestrator of jobs: how far they are, and what came of them."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Self

from adapters.log import Log
from adapters.orchestrator import Backoff, Message, Orchestrator, OrchestratorError
from adapters.polling.lease import Lease
from adapters.polling.spool import Letter, Spool

#: News of a running job is told no more often.
PROGRESS_SECONDS = 1.0
#: What has not changed is told again, so much less often: the answer says whose the job is.
REPEATED_AFTER = 10
#: A report that meets 404 for so long is not waiting for the orchestrator to be deployed.
MISSING_SECONDS = 900.0
#: How long the end of the worker waits for reports to be taken; the rest stays on disk.
FLUSH_SECONDS = 2.0

#: Answers to progress which say that the job is somebody else's.
GONE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE})
#: Refusals which may pass: a wrong key, too, is put right one day.
PASSING = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.MISDIRECTED_REQUEST,
        HTTPStatus.LOCKED,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)


class Courier:
    """Tells of jobs in order: nothing of a job is told after its end.

    Final reports go to the spool first, and are sent until they are taken: across outages of the
    orchestrator, and, as they lie on disk, across restarts of the worker.
    """

    def __init__(
        self,
        client: Orchestrator,
        spool: Spool,
        log: Log,
        *,
        progress_seconds: float = PROGRESS_SECONDS,
        missing_seconds: float = MISSING_SECONDS,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._spool = spool
        self._log = log
        self._progress_seconds = progress_seconds
        self._missing_seconds = missing_seconds
        self._backoff = backoff or Backoff()
        self._letters = list(spool.letters())
        #: Since when each letter has met nothing but 404.
        self._missing_since: dict[Letter, float] = {}
        self._lease: Lease | None = None
        self._letters_due = self._news_due = self._repeat_due = 0.0
        self._failures = 0
        self._over = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def __enter__(self) -> Self:
        """Begin, with what an earlier worker left in the spool."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send what can be sent in a moment, and end; the rest stays in the spool."""
        self.flush()
        with self._change:
            self._over = True
            self._change.notify_all()

    @property
    def waiting(self) -> int:
        """Return how many final reports were not taken yet."""
        return len(self._letters)

    def wake(self) -> None:
        """Look for news now."""
        with self._change:
            self._change.notify_all()

    @contextmanager
    def following(self, lease: Lease) -> Iterator[None]:
        """Tell how far a job is, until the end of the context."""
        self._lease = lease
        try:
            yield
        finally:
            self._lease = None

    def deliver(self, message: Message) -> None:
        """Have a final report sent until it is taken, whatever happens to this process."""
        try:
            letter = self._spool.put(message)
        except OSError as error:
            self._log.error("report is kept in memory only", path=message.path, reason=str(error))
            letter = Letter(message)
        with self._change:
            self._letters.append(letter)
            self._letters_due = 0.0
            self._change.notify_all()

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until all reports are taken, but not for longer than ``seconds``."""
        with self._change:
            self._letters_due = 0.0
            self._change.notify_all()
            self._change.wait_for(lambda: not self._letters, seconds)

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._over and (nap := self._nap()) != 0:
                    self._change.wait(nap)
                if self._over:
                    return
            try:
                self._send_letters()
                self._send_news()
            except Exception:  # noqa: BLE001 - without a courier all jobs would seem to hang
                self._log.error("courier stumbled", stack_trace=traceback.format_exc())

    def _nap(self) -> float | None:
        """Return the seconds until there is something to send; None if nobody knows."""
        dues = [self._letters_due] if self._letters else []
        lease = self._lease
        if lease is not None and not lease.lost:
            dues.append(self._due(lease))
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _due(self, lease: Lease) -> float:
        return self._news_due if lease.has_news else self._repeat_due

    def _send_letters(self) -> None:
        with self._change:
            letters = list(self._letters)
            if not letters or self._letters_due > time.monotonic():
                return
            # Told beforehand: a letter that comes meanwhile is due at once all the same.
            self._failures += 1
            self._letters_due = time.monotonic() + self._backoff.seconds(self._failures)
        for letter in letters:
            try:
                self._client.post(letter.message)
            except OrchestratorError as error:
                if self._may_pass(letter, error.status):
                    self._log.warning("report not taken", path=letter.message.path, **error.facts)
                    if error.status is None:
                        self._postpone(letter)
                        return
                    continue
                self._log.error("report refused", path=letter.message.path, **error.facts)
                self._spool.put_aside(letter)
            else:
                self._spool.remove(letter)
            self._forget(letter)

    def _may_pass(self, letter: Letter, status: int | None) -> bool:
        """Tell whether the orchestrator may still take what it did not take now."""
        if status == HTTPStatus.NOT_FOUND:
            now = time.monotonic()
            return now - self._missing_since.setdefault(letter, now) < self._missing_seconds
        self._missing_since.pop(letter, None)
        return status is None or status in PASSING or not _client_error(status)

    def _postpone(self, letter: Letter) -> None:
        """Let the others go first, should it be this one that breaks every connection."""
        with self._change:
            self._letters.remove(letter)
            self._letters.append(letter)

    def _forget(self, letter: Letter) -> None:
        with self._change:
            self._letters.remove(letter)
            self._missing_since.pop(letter, None)
            if not self._letters:
                self._failures = 0
            self._change.notify_all()

    def _send_news(self) -> None:
        lease, now = self._lease, time.monotonic()
        if lease is None or lease.lost or self._due(lease) > now:
            return
        message = lease.news()
        self._repeat_due = now + REPEATED_AFTER * self._progress_seconds
        if message is None:
            return
        self._news_due = now + self._progress_seconds
        try:
            self._client.post(message)
        except OrchestratorError as error:
            self._log.warning("progress not taken", path=message.path, **error.facts)
            if error.status in GONE:
                lease.lose("The orchestrator took the job back.")


def _client_error(status: int) -> bool:
    return HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
