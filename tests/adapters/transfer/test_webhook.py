from __future__ import annotations

import logging
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

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


def test_a_delivered_result_is_nothing_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    with serving(status(200)) as site:
        _deliver(site.url)

    assert _warnings(caplog) == []


def test_a_receiver_that_never_recovers_is_given_up_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(status(503)) as site:
        _deliver(f"{site.url}/hook?token=5ecre7")

    assert len(site.seen) == 4
    assert _warnings(caplog) == [f"webhook to {HOST} not delivered: 503 Service Unavailable"]


@pytest.mark.parametrize("code", [301, 400, 401, 404, 410])
def test_a_receiver_that_does_not_want_it_is_not_asked_again(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(status(code, Location="/elsewhere")) as site:
        _deliver(site.url)

    assert len(site.seen) == 1
    assert f"answered {code}" in _warnings(caplog)[0]


def test_nothing_is_delivered_unsigned(caplog: pytest.LogCaptureFixture) -> None:
    with serving(status(200)) as site:
        _deliver(site.url, secret=None)

    assert site.connections == 0
    assert _warnings(caplog) == [f"webhook to {HOST} not delivered: WEBHOOK_SECRET is not set"]


@pytest.mark.parametrize(
    ("url", "warning"),
    [
        (
            "http://hooks.test/?t=5ecre7",
            "webhook to hooks.test not delivered: the scheme 'http' is",
        ),
        ("https://localhost/?t=5ecre7", "webhook to localhost not delivered: 'localhost' is not a"),
        ("https://me:5ecre7@hooks.test/", "webhook to hooks.test not delivered: a URL must not"),
        ("mailto:5ecre7@hooks.test", "webhook to nowhere not delivered: the scheme 'mailto' is"),
        ("https://[5ecre7", "webhook to nowhere not delivered: this is not a URL"),
    ],
)
def test_a_forbidden_address_is_warned_of_without_its_secrets(
    url: str, warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    _deliver(url, policy=Policy())

    assert _warnings(caplog)[0].startswith(warning)
    assert "5ecre7" not in _warnings(caplog)[0]


def test_a_result_that_cannot_be_written_as_json_does_not_undo_the_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(status(200)) as site:
        _webhooks()(site.url, {"status": object()})

    assert _warnings(caplog) == [f"webhook to {HOST} not delivered: TypeError"]


def test_a_receiver_cannot_hold_the_worker_up(caplog: pytest.LogCaptureFixture) -> None:
    clock = _StrikingClock()
    with serving(dripping_headers) as site:
        _deliver(site.url, clock=clock)

    assert len(site.seen) == 1
    assert _warnings(caplog) == [f"webhook to {HOST} not delivered: not taken within 30 s"]


def test_tries_and_waits_together_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    patient = Retry(tries=99, longest_asked_seconds=60, sleep=clock.advance)
    with serving(status(503, Retry_After="25")) as site:
        Webhooks(POLICY, SECRET, retry=patient, clock=clock)(site.url, RESULT)

    assert len(site.seen) == 2
    assert clock.now == pytest.approx(TOTAL_SECONDS, abs=1)
    assert len(_warnings(caplog)) == 1


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_a", "whsec_é"])
def test_a_secret_that_cannot_be_one_stops_the_start(secret: str) -> None:
    with pytest.raises(ValueError, match="WEBHOOK_SECRET is not whsec_ and base64"):
        Webhooks(POLICY, secret)


class _StrikingClock(FakeClock):
    """Goes on by a second whenever somebody looks."""

    def __call__(self) -> float:
        self.advance(1.0)
        return self.now


def _webhooks(
    *, policy: Policy = POLICY, secret: str | None = SECRET, clock: FakeClock | None = None
) -> Webhooks:
    slept: list[float] = []
    return Webhooks(policy, secret, retry=Retry(sleep=slept.append), clock=clock or FakeClock())


def _deliver(url: str, **options: Any) -> None:
    _webhooks(**options)(url, RESULT)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]
