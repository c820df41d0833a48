"""Callers that never come to the point, and one that has, and waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from adapters.http.connection import HurriedConnection

HEAD_SECONDS = 0.1
PATIENCE_SECONDS = 10
REQUEST = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"

Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Site:
    """A server that answers at once, but for /slow, and hangs up soon on who does not ask."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[int]:
        """Lend its port."""
        config = uvicorn.Config(self._answer, interface="asgi3", log_config=None)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: HurriedConnection(config, ServerState(), {}, head_seconds=HEAD_SECONDS),
            "127.0.0.1",
        )
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await self.may_end.wait()
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body"})


async def drip(caller: Caller) -> None:
    """Send byte after byte until nobody listens any more."""
    reader, writer = caller
    with suppress(ConnectionError):
        while not reader.at_eof():
            writer.write(b"x")
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await reader.read(100)
    writer.close()


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /hc HTTP/1.1\r\nX-Endless: ",
        REQUEST % b"/hc" + b"GET /hc HTTP/1.1\r\nX-Endless: ",
        b"POST /wrong HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
    ],
    ids=["nothing", "a head", "a second head", "a body after its answer"],
)
def test_a_caller_that_never_comes_to_the_point_is_not_listened_to_for_ever(
    beginning: bytes,
) -> None:
    async def meet() -> float:
        async with Site().opened() as port, asyncio.timeout(PATIENCE_SECONDS):
            caller = await asyncio.open_connection("127.0.0.1", port)
            began = time.monotonic()
            caller[1].write(beginning)
            await drip(caller)
            return time.monotonic() - began

    assert asyncio.run(meet()) >= HEAD_SECONDS


def test_a_caller_that_waits_for_an_answer_is_waited_for_as_well() -> None:
    async def meet() -> bytes:
        site = Site()
        async with site.opened() as port, asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST % b"/slow")
            for _ in range(2):
                # Whoever came later and did not ask is gone by now.
                await drip(await asyncio.open_connection("127.0.0.1", port))
            site.may_end.set()
            answer = await reader.readline()
            writer.close()
        return answer

    assert b"202" in asyncio.run(meet())
