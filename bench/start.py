"""Measure cold starts without a GPU: MuseTalk's by its parts, RunPod's door up to its first job.

    make bench
    .venv/bin/python -m bench.start

The networks are tiny, but for BiSeNet, which has one size; DWPose is left out. Their files are read
from the disk each time, not from the system's memory of it; so are the same bytes by themselves.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

from bench.networks import TINY, write_networks
from bench.report import Report
from bench.timing import ROUNDS, median_seconds, seconds

#: What the project promises.
READY_SECONDS = 3.0
BATCH = 1
#: RunPod's own checks look at the machine, and are its own time.
RUNPOD = {
    "RUNPOD_AI_API_KEY": "bench",
    "RUNPOD_POD_ID": "bench",
    "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
    "RUNPOD_SKIP_GPU_CHECK": "true",
}


def main() -> None:
    """Print the table."""
    print(f"\nCold starts, medians of {ROUNDS}\n")
    report = Report("what", "measured", "ratio", "promised")
    with tempfile.TemporaryDirectory() as scratch:
        _musetalk(report, Path(scratch) / "weights")
        _runpod(report, Path(scratch))


def _musetalk(report: Report, weights: Path) -> None:
    write_networks(weights, TINY)
    files = [path for path in weights.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    command = [sys.executable, "-m", "bench.cold_start", str(weights), str(BATCH)]
    plain, starts = [], []
    for _ in range(ROUNDS):
        forget(*files)
        plain.append(seconds(lambda: [path.read_bytes() for path in files]))
        forget(*files)
        starts.append(_steps(command))
    disk = median(plain)
    report.row(f"reading {size / 1e6:.0f} MB of weights, alone", f"{disk:.3f} s", "1.00")
    for step in starts[0]:
        taken = median(start[step] for start in starts)
        report.row(f"MuseTalk, {step}", f"{taken:.2f} s", f"{taken / disk:.1f}")
    whole = median(sum(start.values()) for start in starts)
    report.row("MuseTalk, in all", f"{whole:.2f} s", f"{whole / disk:.1f}")


def _steps(command: list[str]) -> Mapping[str, float]:
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(printed.splitlines()[-1]))


def forget(*paths: Path) -> None:
    """Have the system forget what it remembers of files."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _runpod(report: Report, scratch: Path) -> None:
    sdk, door = median_seconds(_alone("import runpod"), partial(_first_question, scratch))
    report.row("import runpod, alone", f"{sdk:.2f} s", "1.00")
    promised = f"≤ {READY_SECONDS:g} s"
    report.row("RunPod's door, ready for a job", f"{door:.2f} s", f"{door / sdk:.2f}", promised)


def _alone(code: str) -> Callable[[], object]:
    return partial(subprocess.run, [sys.executable, "-c", code], check=True)


def _first_question(scratch: Path) -> None:
    """Start the door, and wait until it asks for a job."""
    with socket.create_server(("127.0.0.1", 0)) as platform:
        url = f"http://127.0.0.1:{platform.getsockname()[1]}/job-take/$ID"
        env = {
            **os.environ,
            **RUNPOD,
            "MUSETALK_ENGINE": "preview",
            "OUTPUT_DIR": f"{scratch / 'out'}",
            "AVATAR_CACHE_DIR": f"{scratch / 'avatars'}",
            "RUNPOD_WEBHOOK_GET_JOB": url,
        }
        command = [sys.executable, "-m", "adapters.runpod_serverless"]
        worker = subprocess.Popen(
            command,
            env=env,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        platform.settimeout(60)
        try:
            platform.accept()[0].close()
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


if __name__ == "__main__":
    main()
