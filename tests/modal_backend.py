"""Modal on loopback: as much of its control plane as the real client and real containers ask for.

What is real is all that the SDK does: ``modal deploy``, calls, and for each container a process
that runs ``modal._container_entrypoint``. What Modal does is cut down to the least that works:
images are not built, Volumes are not mounted, there is one container for a function and one try
for a call, except that what a container leaves undone is given to the next. Written for modal 1.6.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import grpclib.server
import modal
from aiohttp import web
from grpclib import GRPCError, Status
from modal_proto import api_grpc, api_pb2

from tests.modal_calls import Calls
from tests.modal_container import Container
from tests.modal_gateway import Gateway
from tests.modal_registry import Registry

T = TypeVar("T")

HOST = "127.0.0.1"
CREDENTIALS = ("ak-loopback", "as-loopback")


class Plane:
    """Answers each procedure call by the method of that name that the first of some has."""

    __mapping__ = api_grpc.ModalClientBase.__mapping__

    def __init__(self, cut_off: set[str], *answerers: object) -> None:
        """Hang up on the procedure calls that are ``cut_off``."""
        self._cut_off = cut_off
        self._answerers = answerers

    def __getattr__(self, procedure: str) -> Callable[[Any], Coroutine[Any, Any, None]]:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", procedure).lower()
        methods = (getattr(answerer, name, None) for answerer in self._answerers)
        method = next(filter(None, methods), None)

        async def serve(stream: Any) -> None:
            request = await stream.recv_message()
            if procedure in self._cut_off:
                await stream.cancel()
                return
            if method is None:
                raise GRPCError(Status.UNIMPLEMENTED, procedure)
            answer = method(request)
            if not isinstance(answer, AsyncIterator):
                await stream.send_message(await answer)
                return
            async for message in answer:
                await stream.send_message(message)

        return serve


class ModalBackend:
    """Serves one app from a thread of its own, as a context manager."""

    def __init__(self, place: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
        """Keep the files of containers below ``place``; the named secrets are there already."""
        self.registry = Registry(secrets)
        #: All that there were, the latest of a function last.
        self.containers: list[Container] = []
        #: Procedure calls that get no answer.
        self.cut_off: set[str] = set()
        self._place = place
        self._servers: list[grpclib.server.Server] = []
        self._lives: set[asyncio.Task[None]] = set()
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="modal")

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def web_url(self) -> str:
        """Return where the web function answers."""
        return self.registry.function("web").definition.web_url

    def deploy(self, app: Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run ``modal deploy`` on a file."""
        ours = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._place),
            "MODAL_SERVER_URL": self._url,
            "MODAL_TOKEN_ID": CREDENTIALS[0],
            "MODAL_TOKEN_SECRET": CREDENTIALS[1],
        }
        return subprocess.run(
            [sys.executable, "-m", "modal", "deploy", app.name],
            cwd=app.parent,
            env=ours | env,
            capture_output=True,
            text=True,
            check=False,
        )

    def client(self) -> modal.Client:
        """Return a customer's client, which is a context manager."""
        return modal.Client(self._url, api_pb2.CLIENT_TYPE_CLIENT, CREDENTIALS)

    def preempt(self, tag: str) -> None:
        """Take the machine of a function's container away, and wait until it is gone."""
        container = self._latest(tag)
        self._loop.call_soon_threadsafe(container.interrupt)
        self._wait(self.calls.until(lambda: container.returncode is not None))

    def retire(self, tag: str) -> Container:
        """Have a function's container end in good order, and return it when it has ended."""
        container = self._latest(tag)
        self._wait(container.container_stop(None))
        self._wait(self.calls.until(lambda: container.returncode is not None))
        return container

    def _latest(self, tag: str) -> Container:
        return [container for container in self.containers if container.function.tag == tag][-1]

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> None:
        self.calls = Calls(self._hire)
        listener = socket.create_server((HOST, 0))
        self._gateway = Gateway(self.registry, self.calls, _url(listener))
        self.registry.web_url = self._gateway.url
        self._pages = web.AppRunner(self._gateway.routes())
        await self._pages.setup()
        await web.SockSite(self._pages, listener).start()
        self._url = await self._serve(self.calls, self.registry, self._gateway)

    async def _serve(self, *answerers: object) -> str:
        listener = socket.create_server((HOST, 0))
        server = grpclib.server.Server([Plane(self.cut_off, *answerers)])
        await server.start(sock=listener)
        self._servers.append(server)
        return _url(listener)

    async def _close(self) -> None:
        self._closing = True
        while self._lives:
            for container in self.containers:
                container.kill()
            # One that is just being started is killed the next time.
            await asyncio.wait(self._lives, timeout=0.1)
        for server in self._servers:
            server.close()
            await server.wait_closed()
        await self._pages.cleanup()

    def _hire(self, function_id: str) -> None:
        function = self.registry.functions[function_id]
        if self._closing or any(not c.closed for c in self.containers if c.function is function):
            return
        container = Container(self.registry.new_id("ta"), function, self._place)
        self.containers.append(container)
        life = self._loop.create_task(self._live(container))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)

    async def _live(self, container: Container) -> None:
        url = await self._serve(container, self.calls, self.registry, self._gateway)
        await container.live(self.registry, self.calls, url)


def _url(listener: socket.socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"
