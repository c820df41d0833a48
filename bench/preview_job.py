"""Measure a job of the preview engine against plain ffmpeg, in one run on one machine.

    make bench
    .venv/bin/python -m bench.preview_job FACE VOICE

Plain ffmpeg decodes the face and encodes it again with the voice and the worker's own settings.
The job is ``handle()`` in a warm process: with a face it knows, and with one it does not. Memory is
the peak of the worker and all its children together, as resident sets, in which the libraries of
one program are counted once.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.footage import LONGER, Footage
from bench.jobs import Studio
from bench.memory import peak_mib
from bench.report import Report
from bench.timing import ROUNDS, command_seconds, median_seconds
from inference.preview import preview_parts

WORKER = Path(sys.executable).with_name("musetalk-worker")

#: What the project promises (ratio to ffmpeg; MiB; ratio of a long clip's memory to a short one's).
KNOWN_LIMIT, NEW_LIMIT, MEMORY_LIMIT_MIB, GROWTH_LIMIT = 1.5, 2.5, 500, 1.1
IMPORT_LIMIT_MS, HELP_LIMIT_MS = 150, 400


def main() -> None:
    """Print the table."""
    footage = Footage.given(sys.argv[1:])
    print(f"\nPreview engine, {footage.face.name}, medians of {ROUNDS}\n")
    report = Report("what", "measured", "ratio", "promised")
    with tempfile.TemporaryDirectory() as scratch:
        _times(report, footage, Path(scratch))
        _memory(report, footage, Path(scratch))
    loaded = 1000 * command_seconds([sys.executable, "-c", "import handler"])
    report.row("python -c 'import handler'", f"{loaded:.0f} ms", "", f"≤ {IMPORT_LIMIT_MS} ms")
    helped = 1000 * command_seconds([str(WORKER), "--help"])
    report.row("musetalk-worker --help", f"{helped:.0f} ms", "", f"≤ {HELP_LIMIT_MS} ms")


def _times(report: Report, footage: Footage, scratch: Path) -> None:
    remembering = Studio(preview_parts(), scratch / "known")
    forgetting = Studio(preview_parts(), scratch / "new")
    remembering.film(footage)
    plain, known, new = median_seconds(
        lambda: footage.transcode(scratch),
        lambda: remembering.film(footage),
        lambda: forgetting.film_anew(footage),
    )
    report.row("plain ffmpeg", f"{plain:.2f} s", "1.00")
    report.row("job, face known", f"{known:.2f} s", f"{known / plain:.2f}", f"≤ {KNOWN_LIMIT}")
    report.row("job, face new", f"{new:.2f} s", f"{new / plain:.2f}", f"≤ {NEW_LIMIT}")


def _memory(report: Report, footage: Footage, scratch: Path) -> None:
    short = _peak_mib(footage, scratch)
    report.row("peak memory", f"{short:.0f} MiB", "", f"≤ {MEMORY_LIMIT_MIB} MiB")
    long = _peak_mib(footage.longer(scratch), scratch)
    growth = f"{long / short:.2f}"
    report.row(f"the same, {LONGER} x longer", f"{long:.0f} MiB", growth, f"≤ {GROWTH_LIMIT}")


def _peak_mib(footage: Footage, scratch: Path) -> float:
    """Return the peak memory of a worker that runs one job, its children included."""
    media = ["--video", str(footage.face), "--audio", str(footage.voice)]
    command = [str(WORKER), "run", "--engine", "preview", *media, "--out", str(scratch / "out.mp4")]
    return peak_mib(command, {"AVATAR_CACHE_DIR": str(scratch / "memory")})


if __name__ == "__main__":
    main()
