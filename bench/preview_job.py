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

from adapters.bootstrap import bootstrap
from adapters.config import Config
from adapters.transfer.local import LocalFetch
from bench.footage import LONGER, Footage
from bench.jobs import FACES, Studio
from bench.memory import peak_mib
from bench.report import Report
from bench.timing import ROUNDS, command_seconds, median_seconds
from handler.testing import FakeFetch
from inference.preview import preview_parts

WORKER = Path(sys.executable).with_name("musetalk-worker")

#: What the project promises (ratio to ffmpeg; MiB; ratio of a long clip's memory to a short one's).
KNOWN_LIMIT, NEW_LIMIT, MEMORY_LIMIT_MIB, GROWTH_LIMIT = 1.5, 2.5, 500, 1.1
#: Safeguards: a record, a journal, an engine in a process of its own (ratio to a job without).
GUARDED_LIMIT = 1.03
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
    remembering = Studio.bare(preview_parts(), scratch / "known")
    forgetting = Studio.bare(preview_parts(), scratch / "new")
    guarded = _guarded(scratch / "guarded")
    for studio in (remembering, guarded):
        studio.film(footage)
    plain, known, new, safe = median_seconds(
        lambda: footage.transcode(scratch),
        lambda: remembering.film(footage),
        lambda: forgetting.film_anew(footage),
        lambda: guarded.film(footage),
    )
    report.row("plain ffmpeg", f"{plain:.2f} s", "1.00")
    report.row("job, face known", f"{known:.2f} s", f"{known / plain:.2f}", f"≤ {KNOWN_LIMIT}")
    report.row("job, face new", f"{new:.2f} s", f"{new / plain:.2f}", f"≤ {NEW_LIMIT}")
    report.row("job, face known, with all safeguards", f"{safe:.2f} s", f"{safe / plain:.2f}")
    report.row("  of the same without", "", f"{safe / known:.2f}", f"≤ {GUARDED_LIMIT}")


def _guarded(scratch: Path) -> Studio:
    """Do all that ``serve`` does: records, a journal, an engine in a process of its own."""
    env = {
        "MUSETALK_ENGINE": "preview",
        "AVATAR_CACHE_DIR": f"{scratch / FACES}",
        "OUTPUT_DIR": f"{scratch / 'out'}",
        "SUPERVISED": "true",
    }
    return Studio(bootstrap(Config.from_env(env), fetch=LocalFetch(FakeFetch({}))), scratch)


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
