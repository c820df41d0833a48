"""Measure what a MuseTalk job costs besides its networks, against plain ffmpeg, in one run.

    make bench
    .venv/bin/python -m bench.stubbed_job FACE VOICE

The networks are those of :mod:`bench.stub`, which cost nothing. What is left of a job whose face is
known is decoding, latents and masks from the avatar's file, the generated face's colours and size,
pasting and encoding. Memory is that of jobs whose face is new, with a Whisper of the real size.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.footage import LONGER, Footage
from bench.jobs import Studio
from bench.memory import peak_mib
from bench.report import Report
from bench.stub import stub_parts
from bench.timing import ROUNDS, median_seconds

#: What the project promises (ratio to ffmpeg; ratio of a long clip's memory to a short one's).
KNOWN_LIMIT, GROWTH_LIMIT = 1.5, 1.1


def main() -> None:
    """Print the table."""
    footage = Footage.given(sys.argv[1:])
    print(f"\nMuseTalk without its networks, {footage.face.name}, medians of {ROUNDS}\n")
    report = Report("what", "measured", "ratio", "promised")
    with tempfile.TemporaryDirectory() as scratch:
        _times(report, footage, Path(scratch))
        _memory(report, footage, Path(scratch))


def _times(report: Report, footage: Footage, scratch: Path) -> None:
    studio = Studio.bare(stub_parts(), scratch)
    studio.film(footage)
    plain, known = median_seconds(
        lambda: footage.transcode(scratch),
        lambda: studio.film(footage),
    )
    metrics = studio.film(footage).metrics
    report.row("plain ffmpeg", f"{plain:.2f} s", "1.00")
    report.row("job, face known", f"{known:.2f} s", f"{known / plain:.2f}", f"≤ {KNOWN_LIMIT}")
    for step, busy in metrics.engine_times.items():
        report.row(f"  of that busy: {step}", f"{busy:.2f} s")


def _memory(report: Report, footage: Footage, scratch: Path) -> None:
    short = _peak_mib(footage, scratch / "short")
    report.row("peak memory", f"{short:.0f} MiB")
    long = _peak_mib(footage.longer(scratch), scratch / "long")
    growth = f"{long / short:.2f}"
    report.row(f"the same, {LONGER} x longer", f"{long:.0f} MiB", growth, f"≤ {GROWTH_LIMIT}")


def _peak_mib(footage: Footage, scratch: Path) -> float:
    job = [str(footage.face), str(footage.voice), str(scratch)]
    return peak_mib([sys.executable, "-m", "bench.stub", *job], {})


if __name__ == "__main__":
    main()
