from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from adapters.log import open_log
from adapters.transfer.guard import Policy
from adapters.transfer.retry import Retry
from adapters.transfer.webhook import TOTAL_SECONDS, Webhooks
from handler.testing import FakeClock
from tests.adapters.transfer.loopback import HOST, dripping_headers, serving, status

POLICY = Policy(allow_http=True, private_hosts=frozenset({HOST}))
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
RESULT = {"status": "success", "output_url": "https://cdn.test/é.mp4"}


def test_a_result_is_delivered_with_a_signature_that_receivers_can_check() -> None:
    with serving(status(200)) as site:
        _deliver(f"{site.url}/hook?x=1")

    request = site.seen[0]
    assert Webhook(SECRET).verify(request.body, request.headers) == RESULT
    assert (request.method, request.target) == ("POST", "/hook?x=1")
    assert request.headers["content-type"] == "application/json"


def test_a_signature_with_another_secret_does_not_pass() -> None:
    with serving(status(200)) as site:
        _deliver(site.url)

    request = site.seen[0]
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_b3RoZXI=").verify(request.body, request.headers)


def test_every_try_of_one_result_carries_the_same_id() -> None:
    with serving(status(503), status(429), status(204)) as site:
        _deliver(site.url)

    assert len(site.seen) == 3
    assert len({request.headers["webhook-id"] for request in site.seen}) == 1
    for request in site.seen:
        Webhook(SECRET).verify(request.body, request.headers)


def test_every_result_has_an_id_of_its_own() -> None:
    with serving(status(200)) as site:
        _deliver(site.url)
        _deliver(site.url)

    assert len({request.headers["webhook-id"] for request in site.seen}) == 2


def test_a_delivered_result_is_nothing_to_warn_of() -> None:
    with serving(status(200)) as site:
        told = _deliver(site.url)

    assert told == []


def test_a_receiver_that_never_recovers_is_given_up_with_one_warning() -> None:
    with serving(status(503)) as site:
        told = _deliver(f"{site.url}/hook?token=5ecre7")

    assert len(site.seen) == 4
    assert told == [(HOST, "503 Service Unavailable")]


@pytest.mark.parametrize("code", [301, 400, 401, 404, 410])
def test_a_receiver_that_does_not_want_it_is_not_asked_again(code: int) -> None:
    with serving(status(code, Location="/elsewhere")) as site:
        told = _deliver(site.url)

    assert len(site.seen) == 1
    assert f"answered {code}" in told[0][1]


def test_nothing_is_delivered_unsigned() -> None:
    with serving(status(200)) as site:
        told = _deliver(site.url, secret=None)

    assert site.connections == 0
    assert told == [(HOST, "WEBHOOK_SECRET is not set")]


@pytest.mark.parametrize(
    ("url", "host", "reason"),
    [
        ("http://hooks.test/?t=5ecre7", "hooks.test", "the scheme 'http' is"),
        ("https://localhost/?t=5ecre7", "localhost", "'localhost' is not a"),
        ("https://me:5ecre7@hooks.test/", "hooks.test", "a URL must not"),
        ("mailto:5ecre7@hooks.test", "nowhere", "the scheme 'mailto' is"),
        ("https://[5ecre7", "nowhere", "this is not a URL"),
    ],
)
def test_a_forbidden_address_is_warned_of_without_its_secrets(
    url: str, host: str, reason: str
) -> None:
    told = _deliver(url, policy=Policy())

    [(named, why)] = told
    assert named == host
    assert why.startswith(reason)
    assert "5ecre7" not in why


def test_a_result_that_cannot_be_written_as_json_does_not_undo_the_job() -> None:
    with serving(status(200)) as site:
        told = _deliver(site.url, {"status": object()})

    assert told == [(HOST, "TypeError")]


def test_a_receiver_cannot_hold_the_worker_up() -> None:
    clock = _StrikingClock()
    with serving(dripping_headers) as site:
        told = _deliver(site.url, clock=clock)

    assert len(site.seen) == 1
    assert told == [(HOST, "not taken within 30 s")]


def test_tries_and_waits_together_are_bounded() -> None:
    clock = FakeClock()
    patient = Retry(tries=99, longest_asked_seconds=60, sleep=clock.advance)
    with serving(status(503, Retry_After="25")) as site:
        told = _deliver(site.url, retry=patient, clock=clock)

    assert len(site.seen) == 2
    assert clock.now == pytest.approx(TOTAL_SECONDS, abs=1)
    assert len(told) == 1


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_a", "whsec_é"])
def test_a_secret_that_cannot_be_one_stops_the_start(secret: str) -> None:
    with pytest.raises(ValueError, match="WEBHOOK_SECRET is not whsec_ and base64"):
        _webhooks(io.StringIO(), secret=secret)


class _StrikingClock(FakeClock):
    """Goes on by a second whenever somebody looks."""

    def __call__(self) -> float:
        self.advance(1.0)
        return self.now


def _webhooks(
    lines: io.StringIO,
    *,
    policy: Policy = POLICY,
    secret: str | None = SECRET,
    retry: Retry | None = None,
    clock: FakeClock | None = None,
) -> Webhooks:
    slept: list[float] = []
    patience = retry or Retry(sleep=slept.append)
    return Webhooks(policy, secret, open_log(lines), retry=patience, clock=clock or FakeClock())


def _deliver(url: str, result: Mapping[str, Any] = RESULT, **options: Any) -> list[tuple[str, str]]:
    """Deliver a result; return what an operator reads of it, host and reason."""
    lines = io.StringIO()
    _webhooks(lines, **options)(url, result)
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert {line["message"] for line in told} <= {"webhook not delivered"}
    return [(line["host"], line["reason"]) for line in told]
