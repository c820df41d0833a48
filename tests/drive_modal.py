"""Modal's door as its callers have it: deployed to a Modal on loopback, called by SDK or HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import modal
import requests

from tests.modal_backend import ModalBackend
from tests.modal_gateway import TOKEN

APP = Path(__file__).parents[1] / "modal_app.py"
NAME = "musetalk-worker"
#: The least that a deployment asks its secret for; what is named here is never spoken to.
BUCKET = {"B2_KEY_ID": "unused", "B2_APP_KEY": "unused", "B2_BUCKET_NAME": "unused"}


class ModalDoor:
    """A deployment with the preview engine, from its deploy to its end, as a context manager."""

    def __init__(self, home: Path, app: Path = APP, worker: str = "Worker", **env: str) -> None:
        """Deploy ``app``, of which ``worker`` is the class that gets the jobs.

        All files are kept below ``home``, videos in ``home/out``; ``env`` goes into the secret.
        """
        self._app, self._name = app, worker
        self.out, self.scratch = home / "out", home / "scratch"
        self.scratch.mkdir()
        secret = {
            "MUSETALK_ENGINE": "preview",
            "AVATAR_CACHE_DIR": str(home / "avatars"),
            "OUTPUT_DIR": str(self.out),
            "TMPDIR": str(self.scratch),
            "ALLOW_HTTP": "true",
            "ALLOW_PRIVATE_HOSTS": "127.0.0.1",
        }
        self.backend = ModalBackend(home / "modal", {NAME: BUCKET | secret | env})
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self.backend)
        deployed = self.backend.deploy(self._app, PYTHONPATH=str(APP.parent))
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        self.client = self._open.enter_context(self.backend.client())
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def submit(self, job: Any) -> str:
        """Hand a job over; return the id of its call, by which it is waited for and cancelled."""
        call: modal.FunctionCall[Any] = self._worker().handle.spawn(job)
        return call.object_id

    def wait(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        """Return what became of a job, success or failure, in the contract's shape."""
        with suppress(Exception):
            return dict(self.call(job_id).get(timeout=seconds))
        # It has none of its own, and the SDK raises: the web app has words for that.
        return dict(self.ask("GET", f"/jobs/{job_id}").json())

    def run(self, job: Any) -> dict[str, Any]:
        """Submit a job and wait for what becomes of it."""
        return self.wait(self.submit(job))

    def cancel(self, job_id: str) -> None:
        """Take a job back."""
        self.call(job_id).cancel()

    def call(self, job_id: str) -> modal.FunctionCall[Any]:
        """Return what the SDK knows a job by."""
        return modal.FunctionCall.from_id(job_id, client=self.client)

    def events(self, job: Any) -> Iterator[dict[str, Any]]:
        """Run a job and yield what it tells while it runs, and last its result."""
        events: Iterator[dict[str, Any]] = self._worker().events.remote_gen(job)
        return events

    def ask(
        self, method: str, path: str, token: Mapping[str, str] = TOKEN, **request: Any
    ) -> requests.Response:
        """Make a request of the web app."""
        url = self.backend.web_url + path
        return requests.request(method, url, headers=dict(token), timeout=60, **request)

    def _worker(self) -> Any:
        return modal.Cls.from_name(NAME, self._name, client=self.client)()
