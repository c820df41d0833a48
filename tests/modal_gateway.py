"""The web of the Modal on loopback: HTTP to web functions, and the store for what is large."""

from __future__ import annotations

import hashlib
from typing import Any

from aiohttp import web
from modal._serialization import deserialize_data_format, serialize, serialize_data_format
from modal_proto import api_pb2

from tests.modal_calls import Calls
from tests.modal_registry import Registry

ASGI, PICKLE = api_pb2.DATA_FORMAT_ASGI, api_pb2.DATA_FORMAT_PICKLE
#: What callers show the proxy.
TOKEN = {"Modal-Key": "wk-loopback", "Modal-Secret": "ws-loopback"}


class Gateway:
    """Answers HTTP."""

    def __init__(self, registry: Registry, calls: Calls, url: str) -> None:
        self.url = url
        self._registry = registry
        self._calls = calls
        self._blobs: dict[str, bytes] = {}

    def routes(self) -> web.Application:
        """Return the pages there are."""
        app = web.Application()
        app.router.add_put("/blobs/{id}", self._keep)
        app.router.add_get("/blobs/{id}", self._bring)
        app.router.add_route("*", "/web/{path:.*}", self._call)
        return app

    async def blob_create(self, _: Any) -> Any:
        """Answer the procedure call: say where something large may be put."""
        blob_id = self._registry.new_id("bl")
        urls = api_pb2.UploadUrlList(items=[f"{self.url}/blobs/{blob_id}"])
        return api_pb2.BlobCreateResponse(blob_ids=[blob_id], upload_urls=urls)

    async def blob_get(self, request: Any) -> Any:
        """Answer the procedure call: say where it is."""
        return api_pb2.BlobGetResponse(download_url=f"{self.url}/blobs/{request.blob_id}")

    async def _keep(self, request: web.Request) -> web.Response:
        content = self._blobs[request.match_info["id"]] = await request.read()
        # S3's checksum, and the client's.
        return web.Response(headers={"ETag": hashlib.md5(content).hexdigest()})

    async def _bring(self, request: web.Request) -> web.Response:
        return web.Response(body=self._blobs[request.match_info["id"]])

    async def _call(self, request: web.Request) -> web.Response:
        """Have the web function answer a request, if the caller may ask it."""
        function = self._registry.function("web")
        protected = function.definition.webhook_config.requires_proxy_auth
        if protected and not TOKEN.items() <= dict(request.headers).items():
            return web.Response(status=401)
        body = {"type": "http.request", "body": await request.read(), "more_body": False}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": request.method,
            "path": f"/{request.match_info['path']}",
            "query_string": request.query_string.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in request.headers.items()],
        }
        given = api_pb2.FunctionInput(args=serialize(((scope,), {})), data_format=PICKLE)
        run = await self._calls.start(function.id, given)
        sent = serialize_data_format(body, ASGI)
        run.chunks_in.append(api_pb2.DataChunk(data_format=ASGI, data=sent, index=1))
        await self._calls.tell()
        await self._calls.until(lambda: run.outcome)
        return _response([deserialize_data_format(c.data, ASGI, None) for c in run.chunks_out])


def _response(messages: list[dict[str, Any]]) -> web.Response:
    """Put an answer together from the messages of ASGI."""
    start = next(message for message in messages if message["type"] == "http.response.start")
    body = b"".join(message.get("body", b"") for message in messages)
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    headers.pop("content-length", None)
    return web.Response(status=start["status"], headers=headers, body=body)
