"""The page that says whether the worker can take a job."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.health import Health, serve_health


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def port(health: Health) -> Iterator[int]:
    with serve_health(health, "127.0.0.1", 0) as port:
        yield port


def ask(port: int, path: str) -> tuple[int, Any]:
    """Return the status and the JSON body of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def test_a_worker_that_starts_is_not_ready_yet(port: int) -> None:
    assert ask(port, "/hc") == (503, {"status": "starting"})
    assert ask(port, "/health") == (503, {"status": "starting"})


def test_a_worker_that_is_ready_says_so_and_in_detail_who_it_is(health: Health, port: int) -> None:
    health.ready(version="1.2", engine="preview")

    assert ask(port, "/hc") == (200, {"status": "ok"})
    assert ask(port, "/health") == (200, {"status": "ok", "version": "1.2", "engine": "preview"})


def test_a_broken_worker_never_gets_well_again(health: Health, port: int) -> None:
    health.unhealthy("the GPU fell off the bus")
    health.ready()

    assert ask(port, "/hc") == (503, {"status": "unhealthy"})
    assert ask(port, "/health")[1]["reason"] == "the GPU fell off the bus"


def test_whoever_asks_and_falls_silent_keeps_nobody_else_waiting(health: Health, port: int) -> None:
    health.ready()

    with socket.create_connection(("127.0.0.1", port)):
        assert ask(port, "/hc?from=probe") == (200, {"status": "ok"})


def test_a_port_that_is_taken_is_an_error_at_once(health: Health, port: int) -> None:
    with pytest.raises(OSError, match="in use"), serve_health(health, "127.0.0.1", port):
        pass
