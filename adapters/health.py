"""Whether the worker can take a job (docs/contract.md section 3)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from handler.errors import WorkerBroken
from handler.redaction import redact


class HealthStatus(StrEnum):
    """Name how a worker stands, in the contract's words."""

    STARTING = "starting"
    OK = "ok"
    UNHEALTHY = "unhealthy"


class Health:
    """Keep how the worker stands; any thread may ask or tell, and what is broken stays broken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status = HealthStatus.STARTING
        self._detail: Mapping[str, Any] = {}

    @property
    def status(self) -> HealthStatus:
        """Return how the worker stands."""
        return self._status

    @property
    def http_status(self) -> int:
        """Return what an HTTP door answers with."""
        ready = self._status is HealthStatus.OK
        return HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE

    def ready(self, **detail: Any) -> None:
        """Tell that jobs can be taken, and what is worth knowing of the worker."""
        self._turn(HealthStatus.OK, detail)

    def unhealthy(self, reason: str) -> None:
        """Tell that no further job can be taken, and why."""
        self._turn(HealthStatus.UNHEALTHY, {"reason": redact(reason)})

    def check(self) -> None:
        """Raise :class:`WorkerBroken` if no further job can be taken."""
        if self._status is HealthStatus.UNHEALTHY:
            raise WorkerBroken(str(self._detail.get("reason")))

    def short(self) -> dict[str, Any]:
        """Return what ``/hc`` answers."""
        return {"status": self._status.value}

    def full(self) -> dict[str, Any]:
        """Return what ``/health`` answers."""
        with self._lock:
            return {"status": self._status.value, **self._detail}

    def _turn(self, status: HealthStatus, detail: Mapping[str, Any]) -> None:
        with self._lock:
            if self._status is not HealthStatus.UNHEALTHY:
                self._status, self._detail = status, {**self._detail, **detail}
