"""Tell a caller's webhook what came of a job, signed as Standard Webhooks asks."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from adapters.log import Log
from adapters.transfer.guard import Policy, Unreachable
from adapters.transfer.pulse import Pulse
from adapters.transfer.retry import Retry, Transient
from adapters.transfer.wire import Wire

#: After this a delivery is given up, however many tries are left.
TOTAL_SECONDS = 30.0
STALL_SECONDS = 10.0

#: A job's worker waits for its webhook: be quick about it.
BRISK = Retry(tries=4, first_seconds=1.0, longest_seconds=4.0, longest_asked_seconds=TOTAL_SECONDS)


class _Undelivered(Exception):
    """The receiver did not take the result, and is not asked again."""


class Webhooks:
    """Delivers results: the port ``Notify`` over the network."""

    def __init__(
        self,
        policy: Policy,
        secret: str | None,
        log: Log,
        *,
        retry: Retry = BRISK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Sign with ``secret``; without one nothing is delivered, which the ``log`` is told.

        Raises :class:`ValueError` if the secret is not one of Standard Webhooks' form.
        """
        self._wire = Wire(policy, stall_seconds=STALL_SECONDS)
        self._signer = _signer(secret) if secret is not None else None
        self._log = log
        self._retry = retry
        self._clock = clock

    def __call__(self, url: str, result: Mapping[str, Any]) -> None:
        """POST a result until it is taken or given up; what goes wrong is logged once."""
        try:
            self._deliver(url, json.dumps(result))
        except Exception as error:  # noqa: BLE001 - no webhook can undo a job that is done
            job_id, host = result.get("musetalk_job_id"), _host(url)
            self._log.warning(
                "webhook not delivered", musetalk_job_id=job_id, host=host, reason=_reason(error)
            )

    def _deliver(self, url: str, body: str) -> None:
        if self._signer is None:
            raise _Undelivered("WEBHOOK_SECRET is not set")
        signer, event, pulse = self._signer, f"msg_{uuid.uuid4().hex}", self._pulse()

        def attempt(_number: int) -> None:
            headers = _headers(signer, event, body)
            with self._wire.send("POST", url, headers, pulse=pulse, content=body.encode()) as reply:
                if not reply.succeeded:
                    raise _Undelivered(f"answered {reply}")

        self._retry.run(attempt, pulse)

    def _pulse(self) -> Pulse:
        """Return what ends a delivery that takes too long, whatever it is doing."""
        ends = self._clock() + TOTAL_SECONDS

        def pulse() -> None:
            if self._clock() > ends:
                raise _Undelivered(f"not taken within {TOTAL_SECONDS:g} s")

        return pulse


def _signer(secret: str) -> Webhook:
    try:
        return Webhook(secret)
    except (ValueError, EmptyWebhookSecretError) as error:
        raise ValueError("WEBHOOK_SECRET is not whsec_ and base64") from error


def _headers(signer: Webhook, event: str, body: str) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "Content-Type": "application/json",
        "User-Agent": "musetalk-worker",
        # The same at every try: a receiver knows by it what it has seen already.
        "webhook-id": event,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signer.sign(event, now, body),
    }


def _reason(error: Exception) -> str:
    """Say what went wrong; of an error that nobody foresaw only its name, as it may quote a URL."""
    foreseen = isinstance(error, _Undelivered | Unreachable | Transient)
    return str(error) if foreseen else type(error).__name__


def _host(url: str) -> str:
    with suppress(ValueError):
        return urlsplit(url).hostname or "nowhere"
    return "nowhere"
