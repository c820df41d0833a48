from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import httpcore2
import pytest

from adapters.transfer.guard import (
    ADDRESSES_TRIED,
    GuardedBackend,
    Policy,
    Unreachable,
    is_public,
    look_up,
)
from adapters.transfer.resolver import LookUp, Resolver
from tests.adapters.transfer.loopback import HOST, body, serving

REFUSED = [
    "0.0.0.0",
    "10.0.0.1",
    "127.0.0.1",
    "127.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.0.9",
    "168.63.129.16",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "64:ff9b:1::a9fe:a9fe",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_for_the_public_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "93.184.216.34",
        "100.63.255.255",
        "192.0.1.1",
        "168.63.129.17",
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
        "::ffff:8.8.8.8",
    ],
)
def test_an_address_of_the_public_internet_is_accepted(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/v", "the scheme 'http' is not allowed, only https"),
        ("file:///etc/passwd", "the scheme 'file' is not supported, only https"),
        ("ftp://example.com/v", "the scheme 'ftp' is not supported, only https"),
        ("gopher://example.com/v", "the scheme 'gopher' is not supported, only https"),
        ("data:text/plain,hello", "the scheme 'data' is not supported, only https"),
        ("//example.com/v", "the scheme '' is not supported, only https"),
        ("https://me:secret@example.com/v", "a URL must not hold a user name or password"),
        ("https://example.com\\@127.0.0.1/", "a URL must not hold a user name or password"),
        ("https:///v", "the URL names no host"),
        ("https://exa mple.com/v", "the URL names no host"),
        ("https://[fe80::1%25eth0]/v", "the URL names no host"),
        ("https://example.com:22/v", "port 22 is not allowed"),
        ("https://example.com:0/v", "port 0 is not allowed"),
        ("https://example.com:80/v", "port 80 is not allowed"),
        ("https://example.com:99999/v", "this is not a URL"),
        ("https://[::1/v", "this is not a URL"),
        (f"https://{'ü' * 70}.com/v", "this is not a URL"),
    ],
)
def test_a_url_that_breaks_a_rule_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(Unreachable) as refusal:
        Policy().admit(url)

    assert str(refusal.value) == reason


def test_an_international_url_is_written_as_http_wants_it() -> None:
    url = Policy().admit("HTTPS://Bücher.example/ü ber?q=%41 é#part")

    assert (url.host, url.target) == (b"xn--bcher-kva.example", b"/%C3%BC%20ber?q=%41%20%C3%A9")


def test_a_trusted_host_is_known_by_its_name_in_any_case() -> None:
    policy = Policy(private_hosts=frozenset({"NAS.lan", "[::1]"}))

    assert policy.trusts("nas.lan")
    assert policy.trusts("::1")
    assert not policy.trusts("evil-nas.lan")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0177.0.0.1", "0", "::ffff:127.0.0.1"],
)
def test_nothing_is_sent_to_a_private_address(host: str) -> None:
    with serving(body(b"secret")) as site:
        with pytest.raises(Unreachable, match="is not a public host"):
            GuardedBackend(Policy(), _at_ease).connect_tcp(host, site.port, timeout=5)

        assert site.connections == 0


@pytest.mark.parametrize("answers", [("93.184.216.34", "127.0.0.1"), ("127.0.0.1",)])
def test_one_private_answer_refuses_a_host_whatever_the_others_are(answers: list[str]) -> None:
    with serving(body(b"secret")) as site:
        guard = _guard(Policy(), _answering(*answers))

        with pytest.raises(Unreachable, match=r"'rebind\.test' is not a public host"):
            guard.connect_tcp("rebind.test", site.port, timeout=5)

        assert site.connections == 0


def test_the_refusal_does_not_tell_which_address_a_name_has_inside() -> None:
    guard = _guard(Policy(), _answering("10.20.30.40"))

    with pytest.raises(Unreachable) as refusal:
        guard.connect_tcp("db.internal", 443)

    assert "10.20.30.40" not in str(refusal.value)


def test_a_host_is_looked_up_once_and_the_checked_address_is_dialled() -> None:
    asked: list[str] = []

    def look_up(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.9.9.9"]

    with serving(body(b"")) as site:
        guard = _guard(_trusting("nas.test"), look_up)

        stream = guard.connect_tcp("nas.test", site.port, timeout=5)
        peer = stream.get_extra_info("server_addr")
        stream.close()

    assert asked == ["nas.test"]
    assert peer == ("127.0.0.1", site.port)


@pytest.mark.parametrize("addresses", [("127.9.9.9", HOST), (HOST, "127.9.9.9")])
def test_a_dead_address_does_not_hide_a_live_one(addresses: tuple[str, str]) -> None:
    with serving(body(b"")) as site:
        guard = _guard(_trusting("nas.test"), _answering(*addresses))

        stream = guard.connect_tcp("nas.test", site.port, timeout=5)
        peer = stream.get_extra_info("server_addr")
        stream.close()

    assert peer == ("127.0.0.1", site.port)


def test_a_host_with_a_thousand_addresses_is_not_dialled_a_thousand_times() -> None:
    dead = [f"127.9.9.{last}" for last in range(1, ADDRESSES_TRIED + 1)]
    with serving(body(b"")) as site:
        guard = _guard(_trusting("nas.test"), _answering(*dead, "127.0.0.1"))

        with pytest.raises(httpcore2.ConnectError):
            guard.connect_tcp("nas.test", site.port, timeout=5)

        assert site.connections == 0


def test_an_address_that_leads_to_another_is_sent_nothing() -> None:
    with serving(body(b"secret")) as site:
        # To Linux this is another name of 127.0.0.1.
        guard = _guard(_trusting("nas.test"), _answering("0.0.0.0"))

        with pytest.raises(Unreachable, match="ends at another address"):
            guard.connect_tcp("nas.test", site.port, timeout=5)

    assert site.seen == []


def test_a_name_that_cannot_be_one_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="is not a host name"):
        look_up("a" * 64 + ".example", 443)


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_NODATA])
def test_a_name_that_does_not_exist_is_unreachable(code: int) -> None:
    with pytest.raises(Unreachable, match=r"there is no host 'gone\.test'"):
        look_up("gone.test", 443, _failing(code))


@pytest.mark.parametrize("code", [socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM])
def test_a_name_that_nobody_can_tell_of_now_may_be_asked_for_again(code: int) -> None:
    with pytest.raises(httpcore2.ConnectError, match=r"'later\.test' could not be looked up"):
        look_up("later.test", 443, _failing(code))


def test_the_system_is_asked_for_addresses() -> None:
    assert look_up("127.0.0.1", 80) == ["127.0.0.1"]
    assert socket.gethostbyname("localhost") in look_up("localhost", 80)


def _at_ease() -> None:
    """Let everything go on."""


def _guard(policy: Policy, look_up: LookUp) -> GuardedBackend:
    return GuardedBackend(policy, _at_ease, resolver=Resolver(look_up))


def _failing(code: int) -> Callable[..., Any]:
    def ask(*question: Any, **options: Any) -> Any:
        raise socket.gaierror(code, "no answer")

    return ask


def _answering(*addresses: str) -> LookUp:
    return lambda host, port: addresses


def _trusting(*hosts: str) -> Policy:
    return Policy(allow_http=True, private_hosts=frozenset(hosts))
