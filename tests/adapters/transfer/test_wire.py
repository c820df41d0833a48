from __future__ import annotations

import random
from pathlib import Path

import httpcore2
import pytest

from adapters.transfer.guard import Policy, Unreachable
from adapters.transfer.retry import Transient
from adapters.transfer.wire import RETRYABLE_STATUSES, Wire
from tests.adapters.transfer.loopback import authority_for, body, serving, status

POLICY = Policy(allow_http=True, private_hosts=frozenset({"127.0.0.1", "localhost", "::1"}))


def test_https_is_spoken_with_the_name_although_the_address_is_dialled(tmp_path: Path) -> None:
    authority = authority_for("localhost", tmp_path)
    with serving(body(b"hello"), tls=authority.server) as site:
        wire = Wire(POLICY, stall_seconds=5, tls=authority.client)

        received = _get(wire, f"https://localhost:{site.port}/v")

    assert received == b"hello"
    assert site.seen[0].headers["host"] == f"localhost:{site.port}"


def test_large_bodies_go_both_ways_encrypted(tmp_path: Path) -> None:
    authority = authority_for("localhost", tmp_path)
    sent, answered = random.Random(1).randbytes(5_000_000), random.Random(2).randbytes(5_000_000)
    with serving(body(answered), tls=authority.server) as site:
        wire = Wire(POLICY, stall_seconds=5, tls=authority.client)

        url, size = f"https://localhost:{site.port}/v", {"Content-Length": str(len(sent))}
        with wire.send("PUT", url, size, pulse=lambda: None, content=sent) as reply:
            received = b"".join(reply.body)

    assert site.seen[0].body == sent
    assert received == answered


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    authority = authority_for("elsewhere.example", tmp_path)
    with serving(body(b"hello"), tls=authority.server) as site:
        wire = Wire(POLICY, stall_seconds=5, tls=authority.client)

        with pytest.raises(Unreachable, match="the certificate is not valid"):
            _get(wire, f"https://localhost:{site.port}/v")

    assert site.seen == []


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    authority = authority_for("localhost", tmp_path)
    with serving(body(b"hello"), tls=authority.server) as site:
        with pytest.raises(Unreachable, match="the certificate is not valid"):
            _get(Wire(POLICY, stall_seconds=5), f"https://localhost:{site.port}/v")


def test_a_certificate_that_has_expired_is_refused(tmp_path: Path) -> None:
    authority = authority_for("localhost", tmp_path, expired=True)
    with serving(body(b"hello"), tls=authority.server) as site:
        wire = Wire(POLICY, stall_seconds=5, tls=authority.client)

        with pytest.raises(Unreachable, match=r"the certificate is not valid: .*expired"):
            _get(wire, f"https://localhost:{site.port}/v")

    assert site.seen == []


@pytest.mark.parametrize("code", sorted(RETRYABLE_STATUSES))
def test_a_status_that_may_pass_is_told_apart(code: int) -> None:
    with serving(status(code, Retry_After="7")) as site:
        with pytest.raises(Transient) as failure:
            _get(Wire(POLICY, stall_seconds=5), site.url)

    assert (failure.value.status, failure.value.asked_seconds) == (code, 7.0)


@pytest.mark.parametrize(
    "asked", ["", "soon", "-1", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT", "32 Oct"]
)
def test_a_wish_that_cannot_be_read_is_no_wish(asked: str) -> None:
    with serving(status(503, Retry_After=asked)) as site:
        with pytest.raises(Transient) as failure:
            _get(Wire(POLICY, stall_seconds=5), site.url)

    assert failure.value.asked_seconds == 0


def test_every_error_of_the_http_library_is_understood() -> None:
    errors = [
        thing
        for name in httpcore2.__all__
        if isinstance(thing := getattr(httpcore2, name), type) and issubclass(thing, Exception)
    ]
    wire = Wire(POLICY, stall_seconds=5)
    assert len(errors) >= 14

    for error in errors:
        with pytest.raises((Unreachable, Transient)), wire._understanding():
            raise error


def test_environment_proxies_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving(body(b"hello")) as site:
        assert _get(Wire(POLICY, stall_seconds=5), site.url) == b"hello"


def _get(wire: Wire, url: str) -> bytes:
    with wire.send("GET", url, {}, pulse=lambda: None) as reply:
        return b"".join(reply.body)
