"""The orchestrator's client: every status is looked at, and no answer is waited for for ever."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from adapters.orchestrator import Backoff, Message, Orchestrator, OrchestratorError
from tests.adapters.transfer.loopback import (
    Answer,
    Handler,
    authority_for,
    body,
    dripping_body,
    dripping_headers,
    endless,
    serving,
    silent,
    status,
)

KEY = "internal-s3cr3t-key"
HELLO = Message("/internal/main/jobs/claim", {"worker_id": "worker-1"})


def client(url: str, patience_seconds: float = 5.0) -> Orchestrator:
    return Orchestrator(url, KEY, patience_seconds=patience_seconds)


def hang_up(handler: Handler) -> None:
    """Close the connection without a word."""
    handler.connection.close()


def refusal(*answers: Answer, patience_seconds: float = 5.0) -> OrchestratorError:
    with serving(*answers) as site, pytest.raises(OrchestratorError) as caught:
        client(site.url, patience_seconds).post(HELLO)
    return caught.value


def test_a_message_brings_the_key_and_an_answer_comes_back() -> None:
    with serving(body(b'{"job": null}')) as site:
        answer = client(f"{site.url}/prefix/").post(HELLO)

    (seen,) = site.seen
    assert answer == {"job": None}
    assert (seen.method, seen.target) == ("POST", "/prefix/internal/main/jobs/claim")
    assert seen.headers["x-internal-api-key"] == KEY
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["host"] == f"127.0.0.1:{site.port}"
    assert seen.body == b'{"worker_id": "worker-1"}'


def test_an_empty_yes_is_a_yes() -> None:
    with serving(status(204)) as site:
        assert client(site.url).post(HELLO) is None


@pytest.mark.parametrize("code", [301, 400, 401, 404, 409, 410, 422, 429, 500, 502, 503])
def test_whatever_is_not_a_2xx_is_an_error_with_its_status_and_body(code: int) -> None:
    error = refusal(body(b'{"detail": "not today"}', code))

    assert error.status == code
    assert "not today" in error.body
    assert str(code) in str(error)


def test_a_page_in_the_place_of_json_is_no_answer() -> None:
    error = refusal(body(b"<html>We will be back soon.</html>"))

    assert error.status == 200
    assert "not JSON" in str(error)
    assert "back soon" in error.body


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"9" * 5000, b'{"job": "\xff"}', b'{"job": null'], ids=len
)
def test_json_that_cannot_be_read_is_no_answer(content: bytes) -> None:
    error = refusal(body(content))

    assert error.status == 200
    assert "not JSON" in str(error)


@pytest.mark.parametrize("answer", [silent, dripping_headers, dripping_body, endless, hang_up])
def test_a_server_that_never_comes_to_an_end_is_left(answer: Answer) -> None:
    began = time.monotonic()

    error = refusal(answer, patience_seconds=0.3)

    assert error.status is None
    assert str(error)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid"])
def test_nobody_there_is_an_error_like_any_other(url: str) -> None:
    with pytest.raises(OrchestratorError) as caught:
        client(url).post(HELLO)

    assert caught.value.status is None


@pytest.mark.parametrize("fault", [hang_up, dripping_headers, body(b"?!"), status(500)])
def test_after_a_fault_the_same_client_speaks_on(fault: Answer) -> None:
    with serving(fault, body(b"{}")) as site:
        speaker = client(site.url, patience_seconds=0.3)
        with pytest.raises(OrchestratorError):
            speaker.post(HELLO)

        assert speaker.post(HELLO) == {}


def test_an_answer_that_quotes_the_key_or_a_signed_url_is_not_repeated() -> None:
    text = f"no: {KEY} for https://store.example/v.mp4?X-Amz-Signature=abc " + "blah " * 1000

    error = refusal(body(text.encode(), 401))

    assert KEY not in repr(error.facts)
    assert "Signature" not in repr(error.facts)
    assert error.body.startswith("no: *** for https://store.example/v.mp4 blah")
    assert len(error.body) <= 300


def test_the_key_goes_to_nobody_with_a_false_certificate(tmp_path: Path) -> None:
    stranger = authority_for("127.0.0.1", tmp_path)

    with serving(body(b"{}"), tls=stranger.server) as site:
        with pytest.raises(OrchestratorError, match="certificate"):
            client(site.url).post(HELLO)

    assert site.seen == []


def test_waiting_doubles_up_to_a_limit_and_is_never_the_same_for_all() -> None:
    calm = Backoff(first_seconds=1, longest_seconds=30, chance=lambda: 1.0)
    eager = Backoff(first_seconds=1, longest_seconds=30, chance=lambda: 0.0)

    assert [calm.seconds(failures) for failures in (1, 2, 3, 6, 10_000)] == [1, 2, 4, 30, 30]
    assert [eager.seconds(failures) for failures in (1, 2, 10_000)] == [0.5, 1, 15]
