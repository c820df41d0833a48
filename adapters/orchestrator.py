"""Speak HTTP to the orchestrator, and believe no answer unchecked (docs/contract.md section 4)."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpcore2

from adapters.transfer.guard import GuardedBackend, Policy, Unreachable
from adapters.transfer.wire import status_line
from handler.redaction import redact

KEY_HEADER = "X-Internal-API-Key"

#: No answer of the contract is nearly as large: the largest carries one job.
ANSWER_LIMIT_BYTES = 256 * 1024
#: A stranger's words are repeated no further than this.
QUOTED_CHARACTERS = 300

_FAULTS = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, Unreachable)


@dataclass(frozen=True, slots=True)
class Message:
    """Hold what is to be posted, and where below the orchestrator's base."""

    path: str
    body: Mapping[str, Any]


class OrchestratorError(Exception):
    """The orchestrator did not take a message; the text says why and holds no secret."""

    def __init__(self, reason: str, *, status: int | None = None, body: str = "") -> None:
        super().__init__(reason)
        #: None if there was no answer at all.
        self.status = status
        self.body = body

    @property
    def facts(self) -> dict[str, Any]:
        """Return what a log should say of it."""
        return {"reason": str(self), "status_code": self.status, "body": self.body}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Say how long to wait after so many failures in a row: twice as long each time, jittered."""

    first_seconds: float = 1.0
    longest_seconds: float = 30.0
    #: Returns a number from 0 to 1; many workers must not come back all at once.
    chance: Callable[[], float] = random.random

    def seconds(self, failures: int) -> float:
        """Return how long to wait after the given number of failures, at least 1."""
        # The exponent is bounded: an outage may last for days.
        doubled = self.first_seconds * 2.0 ** min(failures - 1, 30)
        longest = max(self.first_seconds, self.longest_seconds)
        return min(longest, doubled) * (0.5 + 0.5 * self.chance())


class Orchestrator:
    """Posts messages: a new connection for each, as one that is kept may break unnoticed."""

    def __init__(self, base_url: str, api_key: str, *, patience_seconds: float) -> None:
        """Give an answer ``patience_seconds`` to come, and as long again to be read."""
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._patience_seconds = patience_seconds
        parts = urlsplit(base_url)
        # Its operator chose it: unlike the URLs of jobs it may be anywhere, and without TLS.
        self._policy = Policy(allow_http=True, private_hosts=frozenset({parts.hostname or ""}))
        self._host = parts.netloc
        self._tls = httpcore2.default_ssl_context() if parts.scheme == "https" else None

    def post(self, message: Message) -> Any:
        """Post a message and return the JSON data of the answer; None if that is empty.

        Raises :class:`OrchestratorError` unless the answer is a 2xx and JSON: anything else does
        not come from an orchestrator, but from what stands before it.
        """
        try:
            status, content = self._exchange(message)
        except _FAULTS as error:
            raise OrchestratorError(self._quoted(str(error) or type(error).__name__)) from error
        text = self._quoted(content.decode(errors="replace"))
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise OrchestratorError(status_line(status), status=status, body=text)
        try:
            return json.loads(content) if content else None
        except (ValueError, RecursionError) as error:
            reason = f"{status_line(status)}, but the answer is not JSON"
            raise OrchestratorError(reason, status=status, body=text) from error

    def _exchange(self, message: Message) -> tuple[int, bytes]:
        ends = time.monotonic() + self._patience_seconds

        def pulse() -> None:
            if time.monotonic() > ends:
                raise httpcore2.ReadTimeout(f"no answer within {self._patience_seconds:g} s")

        with (
            httpcore2.ConnectionPool(
                ssl_context=self._tls, network_backend=GuardedBackend(self._policy, pulse)
            ) as pool,
            pool.stream(
                "POST",
                self._policy.admit(self._base_url + message.path),
                headers=self._headers(),
                content=json.dumps(message.body).encode(),
                extensions={"timeout": self._timeouts()},
            ) as response,
        ):
            content = b""
            for chunk in response.iter_stream():
                content += chunk
                if len(content) > ANSWER_LIMIT_BYTES:
                    raise httpcore2.RemoteProtocolError("the answer does not end")
            return response.status, content

    def _headers(self) -> list[tuple[str, str]]:
        return [
            ("Host", self._host),
            (KEY_HEADER, self._api_key),
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "musetalk-worker"),
        ]

    def _timeouts(self) -> dict[str, float]:
        return dict.fromkeys(("connect", "read", "write"), self._patience_seconds)

    def _quoted(self, text: str) -> str:
        """Return what may be repeated of an answer: it might even quote our key."""
        words = text.replace(self._api_key, "***")[: 10 * QUOTED_CHARACTERS]
        return redact(words)[:QUOTED_CHARACTERS]
