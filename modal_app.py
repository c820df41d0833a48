"""MuseTalk on Modal: `modal run modal_app.py::fetch_weights`, then `modal deploy modal_app.py`.

Needs a Secret named `musetalk-worker` with the keys of the bucket; any other setting of the worker
may stand in it as well. MUSETALK_GPUS, MUSETALK_MIN_CONTAINERS, MUSETALK_MAX_CONTAINERS,
MUSETALK_SCALEDOWN_SEC, MUSETALK_GPU_SNAPSHOT and GIT_COMMIT are read where `modal deploy` runs.
Callers spawn `Worker().handle`, or speak HTTP to `web` with a proxy token.
Here is only what Modal must know; what runs is adapters/modal_class.py and adapters/modal_web.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal
import modal.experimental

MINUTES = 60  # seconds
GIBIBYTES = 1024  # MiB


def _count(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise ValueError(f"{name}={text}: this is no whole number.")
    return int(text)


def _commit(text: str | None) -> dict[str, str]:
    if text and not re.fullmatch(r"[0-9a-f]{40}", text):
        # Else it would be every container that does not start.
        raise ValueError(f"GIT_COMMIT={text}: give `git rev-parse HEAD`, forty hex digits.")
    return {"GIT_COMMIT": text} if text else {}


#: In order of preference. All have room for MuseTalk, which takes about 7 GiB.
GPUS = (os.environ.get("MUSETALK_GPUS") or "L40S,A10,L4,A100-40GB").split(",")
#: Deploy with MUSETALK_GPU_SNAPSHOT=1 to snapshot the GPU's memory, too: young, and may fail.
GPU_SNAPSHOT = os.environ.get("MUSETALK_GPU_SNAPSHOT") == "1"

#: What results are to tell: there is no build record in this image.
COMMIT = _commit(os.environ.get("GIT_COMMIT"))

WEIGHTS, AVATARS, COMPILED = "/weights", "/avatars", "/compiled"
#: Snapshots go on reading these files: after any change to them, deploy again.
weights = modal.Volume.from_name("musetalk-weights", create_if_missing=True)
#: What a container adds to these, Modal keeps by itself; containers that start later find it.
avatars = modal.Volume.from_name("musetalk-avatars", create_if_missing=True)
compiled = modal.Volume.from_name("musetalk-compiled", create_if_missing=True)
secret = modal.Secret.from_name(
    "musetalk-worker", required_keys=["B2_KEY_ID", "B2_APP_KEY", "B2_BUCKET_NAME"]
)

ROOT = Path(__file__).parent
PACKAGES = ("handler", "inference", "adapters")
#: What Dockerfile.serverless begins with: the lock's wheels are chosen for it.
BASE = (
    "python:3.11-slim-trixie"
    "@sha256:9534e5a8e315485d4061ed659af0fd78a284c015f9b73661b41d6bab25604534"
)
image = (
    modal.Image.from_registry(BASE)
    # Triton wants a C compiler where COMPILE=true.
    .apt_install("ffmpeg", "gcc", "libc6-dev")
    .pip_install_from_requirements(
        str(ROOT / "build/image.lock"),
        extra_options="--require-hashes --only-binary :all: --no-deps",
    )
    .env(
        {
            "MUSETALK_WEIGHTS_DIR": WEIGHTS,
            "AVATAR_CACHE_DIR": AVATARS,
            "COMPILE_CACHE_DIR": COMPILED,
            "HF_XET_HIGH_PERFORMANCE": "1",
            # This file is read in containers as well, and must say the same there.
            "MUSETALK_GPU_SNAPSHOT": str(int(GPU_SNAPSHOT)),
            **COMMIT,
        }
    )
    .add_local_python_source(*PACKAGES)
)
web_image = (
    modal.Image.debian_slim(python_version="3.11")
    .pip_install_from_pyproject(str(ROOT / "pyproject.toml"), optional_dependencies=["serve"])
    .add_local_python_source(*PACKAGES)
)

app = modal.App("musetalk-worker")


@app.cls(
    image=image,
    gpu=GPUS,
    cpu=8,
    memory=16 * GIBIBYTES,
    volumes={
        WEIGHTS: weights.with_mount_options(read_only=True),
        AVATARS: avatars,
        COMPILED: compiled,
    },
    secrets=[secret],
    enable_memory_snapshot=True,
    experimental_options={"enable_gpu_snapshot": True} if GPU_SNAPSHOT else {},
    # Enough to read the weights, and to compile for a GPU that was not met before.
    startup_timeout=20 * MINUTES,
    # For what hangs. What is only slow ends by itself: JOB_TIMEOUT_SEC, or the job's own deadline.
    timeout=120 * MINUTES,
    # Again for what hangs or breaks: a failed job is a result like any other.
    retries=modal.Retries(max_retries=1),
    # Those that wait for jobs are paid for, too.
    scaledown_window=_count("MUSETALK_SCALEDOWN_SEC", 1 * MINUTES),
    min_containers=_count("MUSETALK_MIN_CONTAINERS", 0),
    max_containers=_count("MUSETALK_MAX_CONTAINERS", 10),
)
class Worker:
    """Run jobs, one at a time in each container."""

    @modal.enter(snap=True)
    def read(self) -> None:
        """Start as far as a snapshot can hold it."""
        from adapters import modal_class

        self.engine = modal_class.read(os.environ, to_gpu=GPU_SNAPSHOT)

    @modal.enter()
    def start(self) -> None:
        """Start the rest, in every container."""
        from adapters import modal_class

        stop_fetching = modal.experimental.stop_fetching_inputs
        self.jobs = modal_class.start(os.environ, self.engine, stop_fetching)

    @modal.method()
    def handle(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return a job's result, be it a success or a failure (docs/contract.md)."""
        return self.jobs.handle(job, modal.current_function_call_id())

    @modal.method()
    def events(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield a job's progress, and last its result."""
        yield from self.jobs.events(job, modal.current_function_call_id())

    @modal.exit()
    def stop(self) -> None:
        """Leave word in the log."""
        self.jobs.leave()


@app.function(image=web_image, timeout=1 * MINUTES, max_containers=2)
@modal.concurrent(max_inputs=100)
@modal.asgi_app(requires_proxy_auth=True)
def web() -> Any:
    """Serve `POST /jobs`, `GET /jobs/{id}` and `DELETE /jobs/{id}`."""
    from adapters.modal_web import web_app

    return web_app(Worker().handle)


@app.function(image=image, volumes={WEIGHTS: weights}, cpu=4, timeout=60 * MINUTES)
def fetch_weights() -> None:
    """Bring the weights, at their pinned revisions, into the Volume that all containers read."""
    from adapters.log import open_log
    from inference.weights.fetch import fetch_weights as fetch

    for file in fetch(Path(WEIGHTS), lambda *_: None):
        open_log().info("weights came", path=file.path, repository=file.repository)
    weights.commit()
