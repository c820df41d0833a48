"""Measure a job of the preview engine against plain ffmpeg, in one run on one machine.

    make bench
    .venv/bin/python bench/preview_job.py FACE VOICE

Plain ffmpeg decodes the face and encodes it again with the voice and the worker's own settings.
The job is ``handle()`` in a warm process: with a face it knows, and with one it does not. Memory is
the peak of the worker and all its children together, as resident sets, shared pages counted twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

from adapters.bootstrap import bootstrap, web_fetch
from adapters.config import Config
from adapters.transfer.local import LocalFetch
from handler import Runtime, Success, handle

ROUNDS = 5
#: How often memory is looked at.
SAMPLE_SECONDS = 0.02
LONGER = 10
MEBIBYTE = 1024**2

WORKER = Path(sys.executable).with_name("musetalk-worker")
MEDIA = Path("../shared/media")
OURS = Path("assets")

#: What the project promises (ratio to ffmpeg; MiB; ratio of a long clip's memory to a short one's).
KNOWN_LIMIT, NEW_LIMIT, MEMORY_LIMIT_MIB, GROWTH_LIMIT = 1.5, 2.5, 500, 1.1
IMPORT_LIMIT_MS, HELP_LIMIT_MS = 150, 400


def main() -> None:
    """Print the table."""
    face, voice = _media()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        plain, known, new = _times(face, voice, scratch)
        short = _peak_mib(face, voice, scratch)
        long = _peak_mib(_longer(face, scratch), _longer(voice, scratch), scratch)
    table = Table(title=f"{face.name}, median of {ROUNDS}", show_edge=False)
    for heading in ("what", "measured", "ratio", "promised"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    table.add_row("plain ffmpeg", f"{plain:.2f} s", "1.00", "")
    table.add_row("job, face known", f"{known:.2f} s", f"{known / plain:.2f}", f"≤ {KNOWN_LIMIT}")
    table.add_row("job, face new", f"{new:.2f} s", f"{new / plain:.2f}", f"≤ {NEW_LIMIT}")
    table.add_row("peak memory", f"{short:.0f} MiB", "", f"≤ {MEMORY_LIMIT_MIB} MiB")
    growth = f"{long / short:.2f}"
    table.add_row(f"the same, {LONGER} x longer", f"{long:.0f} MiB", growth, f"≤ {GROWTH_LIMIT}")
    loaded = _start_ms([sys.executable, "-c", "import handler"])
    table.add_row("python -c 'import handler'", f"{loaded:.0f} ms", "", f"≤ {IMPORT_LIMIT_MS} ms")
    helped = _start_ms([str(WORKER), "--help"])
    table.add_row("musetalk-worker --help", f"{helped:.0f} ms", "", f"≤ {HELP_LIMIT_MS} ms")
    Console().print(table)


def _media() -> tuple[Path, Path]:
    if len(sys.argv) > 1:
        return Path(sys.argv[1]), Path(sys.argv[2])
    if MEDIA.is_dir():
        return MEDIA / "sun.mp4", MEDIA / "sun.wav"
    return OURS / "face.mp4", OURS / "voice.wav"


def _times(face: Path, voice: Path, scratch: Path) -> tuple[float, float, float]:
    """Return median seconds of ffmpeg, of a job with a known face, and with a new one."""
    runtime = _runtime(scratch / "known", scratch)
    _job(face, voice, runtime)
    plain, known, new = [], [], []
    # Turn by turn, so that a machine that slows down slows all three alike.
    for turn in range(ROUNDS):
        plain.append(_seconds(partial(_transcode, face, voice, scratch)))
        known.append(_seconds(partial(_job, face, voice, runtime)))
        fresh = _runtime(scratch / f"new-{turn}", scratch)
        new.append(_seconds(partial(_job, face, voice, fresh)))
    return median(plain), median(known), median(new)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _start_ms(command: list[str]) -> float:
    """Return how long a command takes from its start to its end, in milliseconds."""
    run = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    return 1000 * median(_seconds(run) for _ in range(ROUNDS))


def _transcode(face: Path, voice: Path, scratch: Path) -> None:
    encode = "-c:v libx264 -preset veryfast -crf 18 -pix_fmt yuv420p -c:a aac -b:a 192k"
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", str(face), "-i", str(voice)]
    mapped = ["-map", "0:v", "-map", "1:a", *encode.split(), "-movflags", "+faststart"]
    subprocess.run([*command, *mapped, str(scratch / "plain.mp4")], check=True)


def _runtime(cache: Path, scratch: Path) -> Runtime:
    env = {
        "MUSETALK_ENGINE": "preview",
        "AVATAR_CACHE_DIR": str(cache),
        "OUTPUT_DIR": str(scratch / "out"),
    }
    config = Config.from_env(env)
    return bootstrap(config, fetch=LocalFetch(web_fetch(config)))


def _job(face: Path, voice: Path, runtime: Runtime) -> None:
    urls = {"video_url": face.absolute().as_uri(), "audio_url": voice.absolute().as_uri()}
    result = handle({"musetalk_job_id": "bench", **urls}, runtime)
    if not isinstance(result, Success):
        raise SystemExit(result.error_message)


def _longer(media: Path, scratch: Path) -> Path:
    """Return the same clip several times over, without encoding it again."""
    target = scratch / f"longer-{media.name}"
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-stream_loop", str(LONGER - 1)]
    subprocess.run([*command, "-i", str(media), "-c", "copy", str(target)], check=True)
    return target


def _peak_mib(face: Path, voice: Path, scratch: Path) -> float:
    """Return the peak memory of a worker that runs one job, its children included."""
    media = ["--video", str(face), "--audio", str(voice), "--out", str(scratch / "out.mp4")]
    with subprocess.Popen(
        [str(WORKER), "run", "--engine", "preview", *media],
        env={**os.environ, "AVATAR_CACHE_DIR": str(scratch / "memory")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident_bytes(process.pid))
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit("The job failed while its memory was measured.")
    return peak / MEBIBYTE


def _resident_bytes(pid: int) -> int:
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


if __name__ == "__main__":
    main()
