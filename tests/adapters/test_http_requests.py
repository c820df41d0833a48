"""What the HTTP door does with requests that are wrong: in form, in address or in who asks."""

from __future__ import annotations

import asyncio
import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any, Never

import pytest
import requests
import schemathesis
from fastapi import Request
from hypothesis import given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from adapters.config import Config
from adapters.health import Health
from adapters.http.access import open_listener, url_of
from adapters.http.app import Door, build_app
from adapters.http.body import LIMIT_BYTES, read_job
from adapters.http.jobs import Room
from adapters.http_server import served_in_thread
from adapters.log import open_log
from handler import Failure, read_result
from handler.errors import InvalidJob
from handler.testing import fake_runtime
from tests.drive_http import MEDIA, PATIENCE_SECONDS, HttpDriver, OpenDoor, open_door

TOKEN = "correct-horse"
#: What must hold for every answer, whatever was asked.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def door() -> Iterator[OpenDoor]:
    """Return the door of a worker that does each job at once, for all of these tests."""
    with open_door(fake_runtime()) as opened:
        yield opened


@pytest.mark.parametrize(
    "job_id", ["a/b", "../secret", "a..b", "%2e%2e", "", "a b", "é", "x" * 201]
)
def test_an_unlawful_id_is_refused_by_name_and_never_found(door: OpenDoor, job_id: str) -> None:
    handed = door.driver.ask("POST", "/jobs", json=MEDIA | {"musetalk_job_id": job_id})
    sought = door.driver.look(job_id)

    assert handed.status == 422
    assert handed.body["details"]["field"] == "musetalk_job_id"
    assert sought.status in (404, 405)
    assert sought.body["status"] == "failed"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"null", "object"),
        (b"[]", "object"),
        (b'"job"', "object"),
        (b'{"video_url": "\xff"}', "JSON"),
        (b"[" * 100_000, "nested"),
        (b'{"video_url": ' + b"9" * 5000 + b"}", "JSON"),
        (b'{"\\ud800": 1}', "unicode"),
        (b'{"video_url": "\\ud800", "\xc3\xa9": NaN}', "video_url"),
        (b'{"metadata": ' + b'{"a":' * 900 + b"1" + b"}" * 901, "metadata"),
        (b'{"metadata": "' + b"x" * 10_000_000 + b'"}', "bytes"),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("path", ["/generate", "/jobs"])
def test_a_body_that_is_no_job_is_refused_in_the_shape_of_a_failure(
    door: OpenDoor, path: str, body: bytes, complaint: str
) -> None:
    reply = door.driver.ask("POST", path, data=body)

    assert reply.status == 422
    assert complaint in reply.body["error_message"]
    assert "field" in reply.body["details"]
    assert isinstance(read_result(reply.body), Failure)


POST = {"type": "http", "method": "POST", "headers": []}


def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    async def nothing() -> Never:
        return await asyncio.Future()

    with pytest.raises(InvalidJob, match="did not arrive"):
        asyncio.run(read_job(Request(POST, nothing), patience_seconds=0.01))


def test_a_body_without_measure_is_not_kept() -> None:
    chunks = iter([bytes(65536)] * 1024)

    async def flood() -> dict[str, Any]:
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    tracemalloc.start()
    with pytest.raises(InvalidJob, match="67108864 bytes"):
        asyncio.run(read_job(Request(POST, flood)))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 8 * LIMIT_BYTES


@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere"), ("GET", "/generate")])
def test_a_wrong_turn_is_answered_in_the_shape_of_a_failure(
    door: OpenDoor, method: str, path: str
) -> None:
    reply = door.driver.ask(method, path)

    assert reply.status in (404, 405)
    assert isinstance(read_result(reply.body), Failure)


@pytest.mark.parametrize("path", ["/hc", "/health"])
def test_a_probe_that_asks_for_nothing_but_the_status_gets_it(door: OpenDoor, path: str) -> None:
    reply = requests.head(door.driver.url + path, timeout=PATIENCE_SECONDS)

    assert (reply.status_code, reply.content) == (200, b"")


class Sick(Health):
    """A bug in the page of health."""

    def short(self) -> Never:
        raise ZeroDivisionError("of https://example.com/?token=s3cr3t")


def test_a_bug_in_a_page_is_a_failure_and_a_line_of_the_log_with_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = io.StringIO()
    app = build_app(Door(open_log(log), Sick()))
    with (
        open_listener(Config.from_env({"PORT": "0"})) as listener,
        served_in_thread(app, listener),
    ):
        reply = HttpDriver(url_of(listener)).ask("GET", "/hc")

    (line,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert (reply.status, reply.body["error_code"]) == (500, "unknown_error")
    assert "in short" in line["stack_trace"]
    assert "s3cr3t" not in log.getvalue() + json.dumps(reply.body)
    assert caplog.text == ""


@pytest.fixture(scope="module")
def locked() -> Iterator[OpenDoor]:
    """Return the door of a worker that asks for a token."""
    with open_door(fake_runtime(), token=TOKEN) as opened:
        yield opened


@pytest.mark.parametrize(
    "credentials", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/generate"),
        ("POST", "/jobs"),
        ("GET", "/jobs/1"),
        ("DELETE", "/jobs/1"),
        ("GET", "/jobs/1/events"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
    ],
)
def test_nobody_without_the_token_is_let_in(
    locked: OpenDoor, method: str, path: str, credentials: str | None
) -> None:
    reply = locked.driver.ask(method, path, json=MEDIA, headers={"Authorization": credentials})

    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert reply.body["error_code"] == "unauthorized"
    assert TOKEN not in json.dumps(reply.body)


def test_with_the_token_jobs_are_done_and_without_it_probes_are_answered(locked: OpenDoor) -> None:
    probe = locked.driver.ask("GET", "/hc", headers={"Authorization": None})

    assert locked.driver.generate(MEDIA).status == 200
    assert probe.status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Host": "[oops"}],
    ids=str,
)
def test_a_web_page_elsewhere_cannot_use_a_worker_that_has_no_token(
    door: OpenDoor, headers: dict[str, str]
) -> None:
    reply = door.driver.ask("POST", "/generate", json=MEDIA, headers=headers)

    assert reply.status == 401
    assert "WORKER_TOKEN" in reply.body["error_message"]


def answered_to(peer: str) -> int:
    """Return the status of an answer to a request for /metrics from an address."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/metrics",
        "query_string": b"",
        "headers": [(b"host", b"localhost:8000")],
        "client": (peer, 50_000),
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(build_app(Door(open_log(io.StringIO())))(scope, receive, send))
    return int(sent[0]["status"])


def test_who_calls_us_localhost_from_another_machine_needs_a_token() -> None:
    assert answered_to("127.0.0.1") == answered_to("::1") == answered_to("::ffff:127.0.0.1") == 200
    assert answered_to("172.17.0.1") == answered_to("2001:db8::1") == 401


@pytest.fixture(scope="module")
def api() -> Iterator[schemathesis.BaseSchema]:
    """Return the worker's own description of what can be asked, with the worker behind it."""
    with open_door(fake_runtime(), room=Room(waiting=1000)) as opened:
        yield schemathesis.openapi.from_url(f"{opened.driver.url}/openapi.json")


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        ("GET /hc", GenerationMode.POSITIVE),
        ("GET /health", GenerationMode.POSITIVE),
        ("GET /metrics", GenerationMode.POSITIVE),
        ("POST /generate", GenerationMode.POSITIVE),
        ("POST /generate", GenerationMode.NEGATIVE),
        ("POST /jobs", GenerationMode.POSITIVE),
        ("POST /jobs", GenerationMode.NEGATIVE),
        ("GET /jobs/{job_id}", GenerationMode.POSITIVE),
        ("DELETE /jobs/{job_id}", GenerationMode.POSITIVE),
        ("GET /jobs/{job_id}/events", GenerationMode.POSITIVE),
    ],
)
def test_whatever_is_asked_is_answered_as_the_openapi_document_says(
    api: schemathesis.BaseSchema, operation: str, mode: GenerationMode
) -> None:
    method, path = operation.split()

    @given(case=api[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=20, derandomize=True)
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()
