"""The orchestrator's two queues, main and buffer: what is said to each, as plain data.

All of it is fixed by docs/contract.md, section 4. Nothing here speaks to anybody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from adapters.orchestrator import Message, OrchestratorError
from handler.progress import Phase, Progress
from handler.redaction import redact
from handler.result import Result, Success

#: A heartbeat tells of the last failure, not the whole of it.
ERROR_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Say who the worker is, the same in every message."""

    worker_id: str
    worker_type: str
    provider: str
    gpu_class: str
    capacity: int
    system_info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """Say what the worker is at, for its heartbeats."""

    job_id: str | None = None
    #: What the last job failed of, until one succeeds.
    last_error: str | None = None

    @property
    def status(self) -> str:
        """Return the contract's word for it."""
        return "busy" if self.job_id else "idle"


@dataclass(frozen=True, slots=True)
class Claimed:
    """Hold a job that the orchestrator gave away, and the names under which to speak of it."""

    #: What the core gets: the orchestrator's fields, less those of its own.
    raw: Mapping[str, Any]
    job_id: str
    buffer_job_id: str | None = None
    #: How often the job was given away, this time included; None if the orchestrator does not say.
    attempt: int | None = None

    @property
    def delivery(self) -> dict[str, str | int]:
        """Return what tells this delivery of the job from others, for a log."""
        facts = {"buffer_job_id": self.buffer_job_id, "attempt": self.attempt}
        return {name: value for name, value in facts.items() if value is not None}


class Queue(Protocol):
    """Knows the words of one queue."""

    @property
    def name(self) -> str:
        """Return what operators call it."""

    @property
    def interval_seconds(self) -> float:
        """Return how long to wait before asking an empty queue again."""

    def register(self) -> Message | None:
        """Introduce the worker; None where nobody asks for it."""

    def heartbeat(self, standing: Standing) -> Message:
        """Say that the worker is alive, and what it is at."""

    def claim(self) -> Message:
        """Ask for a job."""

    def claimed(self, answer: Any) -> Claimed | None:
        """Read the answer to a claim; None if the queue is empty.

        Raises :class:`OrchestratorError` if there is no job in it that one could answer for.
        """

    def running(self, claimed: Claimed, progress: Progress) -> Message:
        """Say how far a job is."""

    def ended(self, claimed: Claimed, result: Result, fraction: float) -> Message:
        """Say what came of a job that had got to ``fraction`` of its way."""


@dataclass(frozen=True, slots=True)
class MainQueue:
    """The queue of main workers, which come and go."""

    identity: Identity
    interval_seconds: float
    name: str = "main"

    def register(self) -> Message:
        """Introduce the worker."""
        who = self.identity
        body = {
            "worker_type": who.worker_type,
            "gpu_class": who.gpu_class,
            "provider": who.provider,
            "capacity": who.capacity,
        }
        return Message(f"/internal/main/workers/{_part(who.worker_id)}/register", body)

    def heartbeat(self, standing: Standing) -> Message:
        """Say that the worker is alive, what it is at, and what it runs."""
        who = self.identity
        body = {
            "status": standing.status,
            "current_job_id": standing.job_id,
            "provider": who.provider,
            "gpu_class": who.gpu_class,
            "worker_type": who.worker_type,
            "system_info": who.system_info,
        }
        return Message(f"/internal/main/workers/{_part(who.worker_id)}/heartbeat", body)

    def claim(self) -> Message:
        """Ask for a job."""
        who = self.identity
        body = {
            "worker_id": who.worker_id,
            "worker_type": who.worker_type,
            "gpu_class": who.gpu_class,
        }
        return Message("/internal/main/jobs/claim", body)

    def claimed(self, answer: Any) -> Claimed | None:
        """Read the answer to a claim; a job without an id is nothing that one could answer for."""
        job = _read_job(answer)
        if job is None:
            return None
        job_id = _read_id(job.get("musetalk_job_id"))
        if job_id is None:
            raise OrchestratorError("a job without musetalk_job_id was given away")
        return Claimed(job, job_id, attempt=_read_attempt(job))

    def running(self, claimed: Claimed, progress: Progress) -> Message:
        """Say how far a job is."""
        return _progress(claimed, self.identity, progress.to_json())

    def ended(self, claimed: Claimed, result: Result, fraction: float) -> Message:
        """Say what came of a job, where its progress was told."""
        phase = Phase.COMPLETED if isinstance(result, Success) else Phase.FAILED
        last = Progress(phase, 1.0 if phase is Phase.COMPLETED else fraction)
        return _progress(claimed, self.identity, last.to_json() | _outcome(result))


@dataclass(frozen=True, slots=True)
class BufferQueue:
    """The queue of buffer workers, which are always there."""

    identity: Identity
    interval_seconds: float
    name: str = "buffer"

    def register(self) -> None:
        """Stay silent: buffer workers introduce themselves by their heartbeats."""

    def heartbeat(self, standing: Standing) -> Message:
        """Say that the worker is alive, and what the last job failed of."""
        who = self.identity
        body = {
            "status": standing.status,
            "gpu_class": who.gpu_class,
            "capacity": who.capacity,
            "error": standing.last_error,
        }
        return Message(f"/internal/buffer/workers/{_part(who.worker_id)}/heartbeat", body)

    def claim(self) -> Message:
        """Ask for a job."""
        return Message("/internal/buffer/jobs/claim", {"worker_id": self.identity.worker_id})

    def claimed(self, answer: Any) -> Claimed | None:
        """Read the answer to a claim; a job without any id is nothing one could answer for."""
        job = _read_job(answer)
        if job is None:
            return None
        buffer_job_id = _read_id(job.pop("buffer_job_id", None))
        job_id = _read_id(job.get("musetalk_job_id")) or buffer_job_id
        if job_id is None:
            raise OrchestratorError("a job with neither of its ids was given away")
        if job.get("musetalk_job_id") is None:
            job["musetalk_job_id"] = job_id
        return Claimed(job, job_id, buffer_job_id, _read_attempt(job))

    def running(self, claimed: Claimed, progress: Progress) -> Message:
        """Say how far a job is, where main workers say so, too."""
        return _progress(claimed, self.identity, progress.to_json())

    def ended(self, claimed: Claimed, result: Result, fraction: float) -> Message:
        """Say what came of a job."""
        if claimed.buffer_job_id is None:
            # There is one other place where anybody would look for it.
            return MainQueue(self.identity, 0).ended(claimed, result, fraction)
        path = f"/internal/buffer/jobs/{_part(claimed.buffer_job_id)}/status"
        return Message(path, _outcome(result))


def _progress(claimed: Claimed, who: Identity, facts: Mapping[str, Any]) -> Message:
    nothing = {"metrics": None, "error": None, "output_url": None}
    body = {**nothing, **facts, "worker_id": who.worker_id}
    return Message(f"/internal/jobs/{_part(claimed.job_id)}/progress", body)


def _outcome(result: Result) -> dict[str, Any]:
    """Return the end of a job in the orchestrator's words: ``succeeded``, never ``success``."""
    answer = result.to_json()
    if isinstance(result, Success):
        done = {"output_url": result.output_url, "metrics": answer["metrics"]}
        return {"status": "succeeded", "error": None, **done}
    error = json.dumps(answer)
    return {"status": "failed", "error": error, "output_url": None, "metrics": None}


def _read_job(answer: Any) -> dict[str, Any] | None:
    if not isinstance(answer, dict) or "job" not in answer:
        raise OrchestratorError("the answer to a claim holds no word of a job")
    job = answer["job"]
    if isinstance(job, dict):
        return dict(job)
    if job is not None:
        raise OrchestratorError("a job that is not an object was given away")
    if answer.get("error"):
        raise OrchestratorError(f"no job: {redact(str(answer['error']))[:ERROR_CHARACTERS]}")
    return None


def _read_id(value: object) -> str | None:
    """Return an id as text; an unlawful one is still a name under which to refuse its job."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _read_attempt(job: dict[str, Any]) -> int | None:
    """Take out of a job how often it was given away; what is no number is left for its check."""
    attempt = job.get("attempt")
    if not isinstance(attempt, int) or isinstance(attempt, bool):
        return None
    return int(job.pop("attempt"))


def _part(name: str) -> str:
    """Return a name as one part of a path."""
    return quote(name, safe="", errors="replace")
