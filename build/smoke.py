"""Try a finished image, or environment: build/smoke.py --door http, runpod or local.

The door is the real command, in a process of its own, with the engine that the environment names.
What its platform would be, and the sample job, are on loopback. No bucket is touched, whatever the
environment holds. Needs jsonschema beside the worker.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import jsonschema  # type: ignore[import-untyped]
from smoke_platform import Platform

from adapters.config import Config

WORKER = Path(sys.executable).with_name("musetalk-worker")
ASSETS = Path(__file__).parents[1] / "assets"
JOB_ID = "smoke-test"
#: The settings that are taken over: the others tell where jobs come from and where videos go.
ENGINE_SETTINGS = frozenset(
    {
        *("MUSETALK_ENGINE", "MUSETALK_WEIGHTS_DIR", "BATCH_SIZE", "DEVICE", "DTYPE", "COMPILE"),
        *("COMPILE_CACHE_DIR", "ENCODER", "SUPERVISED"),
    }
)
#: How often to look whether a worker is still there.
TICK_SECONDS = 0.1
#: How long a worker that has nothing in hand may take to end.
FAREWELL_SECONDS = 30
#: So much of a worker's log is shown when it fails.
LOG_LINES = 20


class Failed(Exception):
    """The door did not do what it should; the message says what."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Hold what one trial is made of."""

    platform: Platform
    worker: subprocess.Popen[bytes]
    url: str
    videos: Path
    patience_seconds: float

    def await_any(self, look: Callable[[], Any], what: str) -> Any:
        """Wait until a look finds something, which it does within a tick or at the next."""
        deadline = time.monotonic() + self.patience_seconds
        while time.monotonic() < deadline:
            if found := look():
                return found
            if self.worker.poll() is not None:
                raise Failed(f"The worker ended with exit code {self.worker.returncode}.")
        raise Failed(f"After {self.patience_seconds:g} s there is no {what}.")

    def end_of_job(self) -> dict[str, Any]:
        """Wait for what the worker tells its platform of the job's end."""

        def look() -> dict[str, Any] | None:
            with suppress(queue.Empty):
                return self.platform.ends.get(timeout=TICK_SECONDS)
            return None

        return dict(self.await_any(look, "end of the job"))

    def health(self) -> bool:
        """Tell whether the worker says that it is ready."""
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/hc", timeout=5):  # noqa: S310 - on loopback
            return True
        time.sleep(TICK_SECONDS)
        return False


@dataclass(frozen=True, slots=True)
class Door:
    """Say how one door is started, and how the result of the job comes out of it."""

    command: str
    #: What its platform sets, where the platform has this address.
    settings: Callable[[str], dict[str, str]]
    result: Callable[[Trial], dict[str, Any]]


def _from_http(trial: Trial) -> dict[str, Any]:
    trial.await_any(trial.health, "ok from /hc")
    print("ok  /hc says that the worker is ready")
    request = urllib.request.Request(  # noqa: S310 - on loopback
        f"{trial.url}/generate",
        data=json.dumps(trial.platform.job).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=trial.patience_seconds) as answer:  # noqa: S310 - on loopback
            return dict(json.load(answer))
    except urllib.error.HTTPError as refusal:
        return dict(json.load(refusal))


def _from_runpod(trial: Trial) -> dict[str, Any]:
    end = trial.end_of_job()
    return dict(json.loads(end["error"]) if "error" in end else end["output"])


def _from_orchestrator(trial: Trial) -> dict[str, Any]:
    """Return the result that is on record: the orchestrator is told only what it asks for."""
    end = trial.end_of_job()
    if end["status"] != "succeeded":
        return dict(json.loads(end["error"]))
    record = json.loads((trial.videos / f"{JOB_ID}.json").read_text(encoding="utf-8"))
    result = {name: record[name] for name in record.keys() - {"fingerprint", "record_format"}}
    told, known = ((one["output_url"], one["metrics"]) for one in (end, result))
    if told != known:
        raise Failed(f"The orchestrator was told {told}, and on record is {known}.")
    print("ok  the orchestrator was told what is on record")
    return result


DOORS = {
    "http": Door("serve", lambda _: {}, _from_http),
    "runpod": Door(
        "runpod",
        lambda url: {
            "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{url}/ping/$RUNPOD_POD_ID",
            "RUNPOD_AI_API_KEY": "smoke",
            "RUNPOD_POD_ID": "smoke",
            # They look at the machine that builds, not at what is built.
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        },
        _from_runpod,
    ),
    "local": Door(
        "local",
        lambda url: {
            "ORCHESTRATOR_BASE_URL": url,
            "WORKER_ID": "smoke",
            "INTERNAL_API_KEY": "smoke",
            "POLL_INTERVAL_SEC": f"{TICK_SECONDS}",
        },
        _from_orchestrator,
    ),
}


def main() -> None:
    """Try one door; exit code 0 if all is as it should be, 1 if not, with what the worker said."""
    parser = argparse.ArgumentParser(description="Try the worker of this environment.")
    parser.add_argument("--door", choices=DOORS, required=True)
    parser.add_argument("--video", type=Path, default=ASSETS / "face.mp4")
    parser.add_argument("--audio", type=Path, default=ASSETS / "voice.wav")
    parser.add_argument("--patience", type=float, default=600, help="Seconds for start and job.")
    words = parser.parse_args()
    # As Ctrl-C does, so that nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    media = {"video_url": words.video.read_bytes(), "audio_url": words.audio.read_bytes()}
    with (
        tempfile.TemporaryDirectory(prefix="smoke-") as place,
        Platform(JOB_ID, media).serving() as platform,
    ):
        try:
            with _working(DOORS[words.door], platform, Path(place), words.patience) as trial:
                _try(DOORS[words.door], trial)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            _end(f"no  {error}", Path(place) / "log")


def _try(door: Door, trial: Trial) -> None:
    started = time.monotonic()
    result = door.result(trial)
    print(f"ok  {time.monotonic() - started:.1f} s from the start to the result")
    _check(result, trial)
    trial.worker.terminate()
    if code := trial.worker.wait(FAREWELL_SECONDS):
        raise Failed(f"Told to stop, the worker ended with exit code {code}.")
    print("ok  told to stop, the worker ended with exit code 0")


def _check(result: dict[str, Any], trial: Trial) -> None:
    """See that a result is what the contract promises, and its video what the result says."""
    if result.get("status") != "success":
        raise Failed(f"The job failed, {result.get('error_code')}: {result.get('error_message')}")
    printed = subprocess.run([str(WORKER), "schema", "result"], check=True, capture_output=True)
    try:
        jsonschema.validate(result, json.loads(printed.stdout))
    except jsonschema.ValidationError as error:
        raise Failed(f"The result is not what its schema says: {error.message}") from error
    worker = result["worker"]
    print(f"ok  the result is what its schema says; {worker['engine']}, {worker['weights']}")
    video, told = (trial.videos / f"{JOB_ID}.mp4").read_bytes(), result["output"]
    if (len(video), hashlib.sha256(video).hexdigest()) != (told["bytes"], told["sha256"]):
        raise Failed("The video is not the one that the result tells of.")
    print(f"ok  the video is there: {told['frames']} frames, {told['bytes']} bytes")


@contextmanager
def _working(
    door: Door, platform: Platform, place: Path, patience_seconds: float
) -> Iterator[Trial]:
    """Run the door's command, and leave nothing of it."""
    port = _free_port()
    with (place / "log").open("wb") as log:
        worker = subprocess.Popen(
            [str(WORKER), door.command],
            env=_environment(place) | {"PORT": f"{port}"} | door.settings(platform.url),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        yield Trial(platform, worker, url, place / "videos", patience_seconds)
    finally:
        # With RunPod's heartbeat, which is a process of its own, it forms one group.
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def _environment(place: Path) -> dict[str, str]:
    """Return this environment, less all that tells a worker where to take jobs and store videos."""
    foreign = {field.alias for field in Config.model_fields.values()} - ENGINE_SETTINGS
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in foreign and not name.startswith(("RUNPOD_", "OTEL_"))
    }
    return kept | {
        "HOME": f"{place}",
        "TMPDIR": f"{place}",
        "OUTPUT_DIR": f"{place / 'videos'}",
        "AVATAR_CACHE_DIR": f"{place / 'avatars'}",
        "ALLOW_HTTP": "true",
        "ALLOW_PRIVATE_HOSTS": "127.0.0.1",
    }


def _end(message: str, log: Path) -> Never:
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]:
        print(f"    {line}", file=sys.stderr)
    sys.exit(message)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
