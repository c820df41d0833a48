"""A worker at RunPod's door: a process of its own, under the real SDK, with a stand-in backend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.runpod_backend import RunpodBackend

REPOSITORY = Path(__file__).parents[1]

#: The worker as it is deployed.
WORKER = (sys.executable, "-m", "adapters.runpod_serverless")
#: The same, on fakes: its engine does what the jobs' metadata says.
FAKE_WORKER = (sys.executable, "-m", "tests.runpod_fake_worker")


class RunpodDriver:
    """Starts a worker, submits jobs to it and waits for their results."""

    def __init__(
        self,
        home: Path,
        command: tuple[str, ...] = WORKER,
        backend: RunpodBackend | None = None,
        **env: str,
    ) -> None:
        """Run ``command`` with ``env`` on top of a preview worker's; videos go to ``home/out``."""
        self.backend = backend or RunpodBackend()
        self.out = home / "out"
        self._command = command
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": f"{home}",
            "TMPDIR": f"{home}",
            "MUSETALK_ENGINE": "preview",
            "OUTPUT_DIR": f"{self.out}",
            "AVATAR_CACHE_DIR": f"{home / 'avatars'}",
            "ALLOW_HTTP": "true",
            "ALLOW_PRIVATE_HOSTS": "127.0.0.1",
            # The SDK's own checks look at the machine: 4 GB free, DNS, CUDA.
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        } | env
        self._lines: list[str] = []
        self._said = threading.Condition()

    def __enter__(self) -> Self:
        self.backend.__enter__()
        self.process = subprocess.Popen(
            self._command,
            cwd=REPOSITORY,
            env=self._env | self.backend.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # With the SDK's heartbeat, which is a process of its own, it forms one group.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._listen)
        self._reader.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.backend.__exit__()

    def submit(self, job: object) -> str:
        """Send a job; return RunPod's id of it, by which it is waited for and cancelled."""
        return self.backend.submit(job)

    def wait(self, job_id: str, timeout: float = 30) -> dict[str, Any]:
        """Return what became of a job, success or failure, in the contract's shape."""
        body = self.backend.final(job_id, timeout).body
        if "error" not in body:
            return dict(body["output"])
        assert "output" not in body
        return dict(json.loads(body["error"]))

    def run(self, job: object, timeout: float = 30) -> dict[str, Any]:
        """Submit a job and wait for what becomes of it."""
        return self.wait(self.submit(job), timeout)

    def cancel(self, job_id: str) -> None:
        """Take a job back, as a client of RunPod does; so does RunPod when its time is up."""
        self.backend.stop(job_id)

    def terminate(self) -> None:
        """Send SIGTERM, as RunPod does to a worker that it no longer needs."""
        self.process.terminate()

    def exit_code(self, timeout: float = 10) -> int:
        """Wait for the worker to end."""
        return self.process.wait(timeout)

    @property
    def log(self) -> str:
        """Return all that the worker and the SDK have printed so far."""
        return "".join(self._lines)

    def log_line(self, *words: str, timeout: float = 10) -> str:
        """Wait for a line that holds all of these words."""

        def find() -> str | None:
            return next((line for line in self._lines if all(word in line for word in words)), None)

        with self._said:
            line = self._said.wait_for(find, timeout)
        assert line, f"no line with {words} in:\n{self.log}"
        return line

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self._lines.append(line)
                self._said.notify_all()
