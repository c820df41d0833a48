from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpcore2
import pytest

from adapters.transfer.pace import Meter, Pace
from adapters.transfer.pulse import PULSE_SECONDS, Pulse
from adapters.transfer.stream import WRITE_BYTES, PulsedStream, dial
from tests.adapters.transfer.loopback import HOST, mute, unanswered


def test_somebody_who_does_not_pick_up_is_given_up() -> None:
    with unanswered() as port:
        with pytest.raises(httpcore2.ConnectTimeout):
            dial(HOST, port, 0.05, _at_ease)


def test_somebody_who_is_not_there_is_given_up() -> None:
    with mute() as port:
        pass

    with pytest.raises(httpcore2.ConnectError, match="refused"):
        dial(HOST, port, 5.0, _at_ease)


def test_whoever_is_dialled_is_known_by_address() -> None:
    with mute() as port:
        connection, peer = dial(HOST, port, 5.0, _at_ease)
        connection.close()

    assert peer == HOST


def test_an_encryption_that_never_begins_is_given_up() -> None:
    with mute() as port:
        connection, _ = dial(HOST, port, 5.0, _at_ease)

        with pytest.raises(httpcore2.ConnectTimeout):
            _stream(connection).start_tls(ssl.create_default_context(), HOST, timeout=0.05)

        assert connection.fileno() == -1


def test_a_wait_longer_than_one_beat_goes_on() -> None:
    beats: list[None] = []
    with _pair() as (ours, theirs):

        def pulse() -> None:
            beats.append(None)
            if len(beats) == 2:
                theirs.send(b"late")

        received = PulsedStream(ours, pulse, Meter(Pace())).read(100, timeout=10 * PULSE_SECONDS)

    assert received == b"late"
    assert len(beats) == 2


def test_what_is_written_arrives_whole_though_it_is_taken_bit_by_bit() -> None:
    content = bytes(range(256)) * 8192
    taken = bytearray()
    with _pair() as (ours, theirs):
        theirs.settimeout(0)

        def take() -> None:
            with suppress(BlockingIOError):
                taken.extend(theirs.recv(3 * WRITE_BYTES))

        _stream(ours, take).write(content, timeout=5.0)
        ours.close()
        theirs.settimeout(5.0)
        while rest := theirs.recv(WRITE_BYTES):
            taken.extend(rest)

    assert taken == content


def test_a_connection_that_breaks_is_told_from_one_that_is_slow() -> None:
    with _pair() as (ours, theirs):
        theirs.send(b"unread")
        theirs.close()
        stream = _stream(ours)

        assert stream.read(100, timeout=5.0) == b"unread"
        with pytest.raises(httpcore2.WriteError):
            stream.write(b"x", timeout=5.0)


@contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def _at_ease() -> None:
    """Let everything go on."""


def _stream(connection: socket.socket, pulse: Pulse = _at_ease) -> PulsedStream:
    return PulsedStream(connection, pulse, Meter(Pace()))
