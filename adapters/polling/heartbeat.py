"""One thread that does nothing but say that the worker is alive."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Self

from adapters.log import Log
from adapters.orchestrator import Message, Orchestrator, OrchestratorError
from adapters.polling.queues import Queue, Standing

#: A worker that is silent for 30 s is taken for dead (docs/contract.md section 4).
HEARTBEAT_SECONDS = 10.0


class Heartbeat:
    """Sends heartbeats from a thread and with a client of its own, so that nothing delays them."""

    def __init__(
        self,
        client: Orchestrator,
        queues: Sequence[Queue],
        standing: Callable[[], Standing],
        log: Log,
        *,
        every_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        """Ask ``standing``, which must not wait, what to say."""
        self._client = client
        self._queues = queues
        self._standing = standing
        self._log = log
        self._every_seconds = every_seconds
        self._strangers = list(queues)
        self._over = threading.Event()
        #: Set once the orchestrator was spoken to, whether or not it listened.
        self.begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Fall silent; a heartbeat under way is not waited for."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                self._beat()
            except Exception:  # noqa: BLE001 - without heartbeats the worker counts as dead
                self._log.error("heartbeat stumbled", stack_trace=traceback.format_exc())
            self.begun.set()
            self._over.wait(max(0.0, began + self._every_seconds - time.monotonic()))

    def _beat(self) -> None:
        self._strangers = [queue for queue in self._strangers if not self._introduced(queue)]
        for queue in self._queues:
            self._post("heartbeat failed", queue.heartbeat(self._standing()))

    def _introduced(self, queue: Queue) -> bool:
        """Register with a queue; an orchestrator that knows no registration does without."""
        message = queue.register()
        error = self._post("register failed", message) if message else None
        return error is None or error.status == HTTPStatus.NOT_FOUND

    def _post(self, complaint: str, message: Message) -> OrchestratorError | None:
        try:
            self._client.post(message)
        except OrchestratorError as error:
            self._log.warning(complaint, path=message.path, **error.facts)
            return error
        return None
