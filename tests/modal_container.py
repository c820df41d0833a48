"""A container of the Modal on loopback: the real container runtime, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2

from tests.modal_calls import Calls, Run
from tests.modal_registry import APP_ID, Deployed, Registry

#: Less than the client's own interval, at whose end it would give up and ask again.
HEARTBEAT_SECONDS = 14
#: What a container calls itself until it is restored from its snapshot.
BEFORE_SNAPSHOT = "ta-snapshot"


class Container:
    """Runs what a function is asked, one after the other or as many at once as it says."""

    def __init__(self, task_id: str, function: Deployed, place: Path) -> None:
        """Keep its files in a directory of its own below ``place``."""
        self.id = task_id
        self.function = function
        self.place = place / task_id
        #: No run is begun in it any more.
        self.closed = False
        self.snapshots = 0
        self.returncode: int | None = None
        self._runs: dict[str, Run] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def live(self, registry: Registry, calls: Calls, url: str) -> None:
        """Start the process, see to its end, and have others do what it left undone."""
        self._calls = calls
        root = self._unpack(registry)
        env = self._env(registry, url, root)
        with (self.place / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "modal._container_entrypoint"),
                cwd=root,
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self.returncode = await self._process.wait()
        self.closed = True
        for run in self._runs.values():
            await calls.queue(run)
        await calls.tell()

    def interrupt(self) -> None:
        """Take its machine away, as far as the process can tell."""
        self.closed = True
        assert self._process
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it and all its children at once."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def log(self) -> str:
        """Return what it wrote."""
        return (self.place / "log").read_text()

    def _unpack(self, registry: Registry) -> Path:
        """Write the files that were shipped, and nothing else; return their root."""
        for path, content in registry.shipped(self.function.tag).items():
            target = self.place / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return self.place / "root"

    def _env(self, registry: Registry, url: str, root: Path) -> dict[str, str]:
        definition = api_pb2.Function()
        definition.CopyFrom(self.function.definition)
        definition.is_checkpointing_function = definition.checkpointing_enabled
        arguments = api_pb2.ContainerArguments(
            task_id=self.id,
            function_id=self.function.id,
            app_id=APP_ID,
            function_def=definition,
            checkpoint_id="ch-1",
            app_layout=registry.layout(),
        )
        (self.place / "arguments").write_bytes(arguments.SerializeToString())
        # What Modal leaves for a container that it restores; here it is there beforehand.
        (self.place / "restored").write_text(json.dumps({"task_id": self.id}))
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.place),
            "PYTHONPATH": str(root),
            **registry.env(self.function.tag),
            "MODAL_SERVER_URL": url,
            "MODAL_IS_REMOTE": "1",
            "MODAL_IMAGE_ID": definition.image_id,
            "MODAL_TASK_ID": BEFORE_SNAPSHOT if definition.checkpointing_enabled else self.id,
            "MODAL_ENABLE_SNAP_RESTORE": "1",
            "MODAL_CONTAINER_ARGUMENTS_PATH": str(self.place / "arguments"),
            "MODAL_RESTORE_STATE_PATH": str(self.place / "restored"),
        }

    # -- procedure calls, by their names

    async def container_hello(self, _: Any) -> Any:
        return Empty()

    async def container_heartbeat(self, _: Any) -> Any:
        def taken_back() -> list[str]:
            return [run.id for run in self._runs.values() if run.cancelled]

        await self._calls.until(taken_back, HEARTBEAT_SECONDS)
        answer = api_pb2.ContainerHeartbeatResponse()
        answer.cancel_input_event.input_ids.extend(taken_back())
        return answer if taken_back() else api_pb2.ContainerHeartbeatResponse()

    async def container_checkpoint(self, _: Any) -> Any:
        self.snapshots += 1
        return Empty()

    async def container_stop(self, _: Any) -> Any:
        self.closed = True
        await self._calls.tell()
        return api_pb2.ContainerStopResponse()

    async def task_result(self, request: Any) -> Any:
        """Give up: whatever keeps this container from starting will keep the next one, too."""
        waiting = self._calls.waiting(self.function.id)
        while waiting:
            await self._calls.finish(waiting.popleft(), request.result)
        return Empty()

    async def function_get_dynamic_concurrency(self, request: Any) -> Any:
        most = request.max_concurrency
        return api_pb2.FunctionGetDynamicConcurrencyResponse(concurrency=most)

    async def function_get_inputs(self, _: Any) -> Any:
        waiting = self._calls.waiting(self.function.id)
        await self._calls.until(lambda: self.closed or waiting)
        answer = api_pb2.FunctionGetInputsResponse()
        if self.closed:
            answer.inputs.add(kill_switch=True)
            return answer
        run = waiting.popleft()
        self._runs[run.id] = run
        answer.inputs.add(
            input_id=run.id,
            function_call_id=run.id,
            input=run.input,
            function_call_invocation_type=run.invocation_type,
        )
        return answer

    async def function_put_outputs(self, request: Any) -> Any:
        for output in request.outputs:
            run = self._runs.pop(output.input_id)
            await self._calls.finish(run, output.result, output.data_format)
        return Empty()
