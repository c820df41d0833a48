"""RunPod's REST API on loopback, version 2, as far as templates and endpoints go.

It takes what the documented requests may hold and nothing else, and answers problems in the
documented form. Whatever is in the way of a request can be said beforehand.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

import jsonschema

from tests.loopback_server import LoopbackServer

KEY = "rpa_THEKEY"

TEXT, FLAG, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "array", "items": TEXT}


def _record(*required: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }


CONTAINER = {
    "args": TEXT,
    "disk": {"type": "integer", "minimum": 1},
    "env": {"type": "object", "additionalProperties": TEXT},
    "image": TEXT,
    "ports": TEXTS,
    "registry": {"type": ["string", "null"]},
}
TEMPLATE = CONTAINER | {
    "name": TEXT,
    "serverless": FLAG,
    "public": FLAG,
    "startSsh": FLAG,
    "startJupyter": FLAG,
}
POOLS = ["AMPERE_16", "AMPERE_24", "ADA_24", "AMPERE_48", "ADA_48_PRO", "AMPERE_80", "ADA_80_PRO"]
ENDPOINT = CONTAINER | {
    "name": TEXT,
    "templateId": TEXT,
    "gpu": _record(
        "pools",
        pools={"type": "array", "items": {"enum": POOLS}, "minItems": 1},
        count={"type": "integer", "minimum": 1},
        minCudaVersion={"type": "string", "pattern": r"^\d+\.\d+$"},
    ),
    "workers": _record(
        min=COUNT, max=COUNT, idleTimeout={"type": "integer", "minimum": 1, "maximum": 3600}
    ),
    "scaling": {
        "oneOf": [
            _record(
                *("type", "queueDelay"),
                type={"const": "QUEUE_DELAY"},
                queueDelay={"type": "number", "minimum": 0.5},
            ),
            _record(
                *("type", "requestCount"),
                type={"const": "REQUEST_COUNT"},
                requestCount={"type": "integer", "minimum": 1},
            ),
        ]
    },
    "networkVolumes": TEXTS,
    "dataCenterIds": TEXTS,
    "timeout": {"type": "integer"},
    "flashboot": {"enum": ["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"]},
}
#: What requests may hold. ``type`` can be said at the start only.
SHAPES = {
    ("POST", "templates"): _record("name", "image", **TEMPLATE),
    ("PATCH", "templates"): _record(**TEMPLATE),
    ("POST", "serverless"): _record(
        *("name", "type", "scaling", "gpu"), **ENDPOINT, type={"enum": ["QUEUE", "LOAD_BALANCER"]}
    ),
    ("PATCH", "serverless"): _record(**ENDPOINT),
}
LISTED = {"templates": "templates", "serverless": "endpoints"}
#: What a thing has that nobody has said.
DEFAULTS: dict[str, dict[str, Any]] = {
    "templates": {"args": "", "registry": None, "ports": [], "public": False, "category": "NVIDIA"},
    "serverless": {"args": "", "registry": None, "ports": [], "dataCenterIds": []},
}


class Problem(Exception):
    """What is wrong with a request."""

    def __init__(self, status: int, detail: str, *errors: str) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {"title": "Problem", "status": status, "detail": detail, "errors": errors}


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    body: Any


class RunpodRest:
    """Keeps an account's templates and endpoints, as a context manager."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        #: What to do instead of answering, for the next requests that change something.
        self.troubles: deque[Callable[[BaseHTTPRequestHandler], None]] = deque()
        self.things: dict[str, dict[str, dict[str, Any]]] = {"templates": {}, "serverless": {}}
        self.over = threading.Event()
        self._ids = itertools.count(1)

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.account = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v2"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def template(self) -> dict[str, Any]:
        """Return the only template."""
        (template,) = self.things["templates"].values()
        return template

    @property
    def endpoint(self) -> dict[str, Any]:
        """Return the only endpoint."""
        (endpoint,) = self.things["serverless"].values()
        return endpoint

    @property
    def changes(self) -> list[Asked]:
        """Return the requests that were to change something."""
        return [asked for asked in self.asked if asked.method != "GET"]

    def add(self, kind: str, **fields: Any) -> str:
        """Have a thing from the start; return its id."""
        thing_id = f"{kind}-{next(self._ids)}"
        self.things[kind][thing_id] = {"id": thing_id, **DEFAULTS[kind], **fields}
        return thing_id

    def check_key(self, header: str) -> None:
        if header != f"Bearer {KEY}":
            raise Problem(401, "missing bearer token")

    def answer(self, method: str, path: str, body: Any) -> Any:
        kind, _, thing_id = path.removeprefix("/v2/").partition("/")
        if kind not in LISTED:
            raise Problem(404, "not found")
        if method == "GET":
            return {LISTED[kind]: list(self.things[kind].values())}
        self._check(method, kind, body)
        if method == "PATCH" and thing_id not in self.things[kind]:
            raise Problem(404, "resource not found")
        applied = self._applied(body)
        if method == "POST":
            thing_id = self.add(kind)
            if kind == "serverless":
                applied["gpu"] = {"allowedCudaVersions": [], **applied["gpu"]}
        self.things[kind][thing_id].update(applied)
        return self.things[kind][thing_id]

    def _check(self, method: str, kind: str, body: Any) -> None:
        faults = jsonschema.Draft202012Validator(SHAPES[method, kind]).iter_errors(body)
        if errors := [f"{fault.json_path}: {fault.message}" for fault in faults]:
            raise Problem(422, "Request validation failed.", *errors)

    def _applied(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return what a body comes to: a template is copied, and not remembered."""
        if "templateId" not in body:
            return body
        template = self.things["templates"].get(body["templateId"])
        if template is None:
            raise Problem(404, "template not found")
        rest = {name: value for name, value in body.items() if name != "templateId"}
        return {name: template[name] for name in CONTAINER if name in template} | rest


class _Server(LoopbackServer):
    account: RunpodRest


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def answer(self) -> None:
        account = self.server.account
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(raw) if raw else None
        account.asked.append(Asked(self.command, self.path, body))
        if self.command != "GET" and account.troubles:
            account.troubles.popleft()(self)
            return
        try:
            account.check_key(self.headers["Authorization"])
            content, status = account.answer(self.command, self.path, body), 200
        except Problem as problem:
            content, status = problem.body, problem.status
        reply(self, status, json.dumps(content))

    do_GET = do_POST = do_PATCH = answer  # noqa: N815 - what http.server looks for

    def log_message(self, *args: Any) -> None:
        """Be quiet."""


def reply(handler: BaseHTTPRequestHandler, status: int, text: str, **headers: str) -> None:
    """Answer with a text."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(text.encode())
