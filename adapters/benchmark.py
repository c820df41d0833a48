"""What a video costs on this machine, with the engine that is configured (docs/cost.md)."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

from adapters.bootstrap import bootstrap, web_fetch
from adapters.config import Config
from adapters.transfer.local import FileStore, LocalFetch
from handler import Runtime, Success
from handler.result import CacheUse, Output, Result, Worker

SECONDS_A_MINUTE = 60
#: What a clock says beyond the millisecond is noise.
DIGITS = 3

#: Of the table: all of it, the column of names, each of the others. The letters are docs/cost.md's.
COLUMNS, NAMES, NUMBERS = 100, 16, 14
HEADINGS = ("jobs", "seconds", "fastest", "slowest", "video minute", "frames/second")
UNKNOWN = "-"

#: Run one job by a worker.
Film = Callable[[Mapping[str, Any], Runtime], Result]


class JobFailed(Exception):
    """A job has no video, and nothing can be said of what one costs; the message says why."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Hold what a job of some kind costs: medians, and how far the jobs were apart."""

    jobs: int
    #: From the job's start to its end.
    seconds: float
    fastest_seconds: float
    slowest_seconds: float
    #: The same, of a minute of video.
    seconds_per_minute: float
    #: Frames of video in a second of the worker.
    frames_per_second: float
    #: Of the seconds, those of the engine, encoding included, and of these those of the networks.
    engine_seconds: float
    networks_seconds: float

    @classmethod
    def of(cls, results: Sequence[Success], use: CacheUse) -> Cost | None:
        """Sum up the jobs whose face was known, or those whose face was new; None without any."""
        jobs = [result.metrics for result in results if result.metrics.avatar_cache is use]
        if not jobs:
            return None
        video, spent = _output(results), [job.total_time for job in jobs]
        seconds = median(spent)
        return cls(
            jobs=len(jobs),
            seconds=round(seconds, DIGITS),
            fastest_seconds=round(min(spent), DIGITS),
            slowest_seconds=round(max(spent), DIGITS),
            seconds_per_minute=round(SECONDS_A_MINUTE / video.duration * seconds, DIGITS),
            frames_per_second=round(video.frames / seconds, DIGITS),
            engine_seconds=round(median(job.script_wall_time_sec for job in jobs), DIGITS),
            networks_seconds=round(median(job.generation_time_sec for job in jobs), DIGITS),
        )


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Say what one worker needed for jobs that differ in nothing but their ids."""

    worker: Worker
    gpu_class: str
    video: Output
    #: What the networks took at once, where memory was shortest; None if the engine does not say.
    batch_size: int | None
    peak_vram_mib: float | None
    new_face: Cost | None
    #: None if the cache had no room for the face.
    known_face: Cost | None

    @classmethod
    def of(cls, worker: Worker, results: Sequence[Success]) -> Benchmark:
        """Sum up the jobs of a worker, of which there is one at least."""
        metrics = [result.metrics for result in results]
        sizes = [each.batch_size for each in metrics if each.batch_size is not None]
        peaks = [each.peak_vram_mib for each in metrics if each.peak_vram_mib is not None]
        return cls(
            worker=worker,
            gpu_class=metrics[0].gpu_class,
            video=_output(results),
            batch_size=min(sizes, default=None),
            peak_vram_mib=max(peaks, default=None),
            new_face=Cost.of(results, CacheUse.MISS),
            known_face=Cost.of(results, CacheUse.HIT),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; null is what is not known."""
        described = {"width", "height", "fps", "frames", "video_codec", "audio_codec"}
        return {
            "worker": self.worker.model_dump(mode="json"),
            "gpu_class": self.gpu_class,
            "batch_size": self.batch_size,
            "video": {
                "duration_seconds": self.video.duration,
                **self.video.model_dump(include=described),
            },
            "start_seconds": self.worker.cold_start_sec,
            "new_face": self.new_face and asdict(self.new_face),
            "known_face": self.known_face and asdict(self.known_face),
            "peak_vram_mib": self.peak_vram_mib,
        }

    def table(self) -> Iterator[str]:
        """Yield the lines of a table that fits ``COLUMNS``."""
        video, known = self.video, self.known_face
        size = f"{video.width}x{video.height}"
        yield from _line("worker", self._identity())
        yield from _line("video (V)", f"{video.duration} s, {video.frames} frames of {size}")
        yield from _line("start (C)", _told(self.worker.cold_start_sec, " s"))
        yield from _line("peak VRAM", _told(self.peak_vram_mib, " MiB"))
        yield ""
        yield _row("", *HEADINGS)
        yield _row("new face (W)", *_cells(self.new_face))
        yield _row("known face (W)", *_cells(known))
        if known is None:
            yield "The face was not remembered from job to job: see AVATAR_CACHE_MB."
        else:
            yield _row("  engine (E)", "", _number(known.engine_seconds))
            yield _row("  networks (G)", "", _number(known.networks_seconds))

    def _identity(self) -> str:
        worker = self.worker
        facts = {
            "weights": worker.weights,
            "PyTorch": worker.torch,
            "CUDA": worker.cuda,
            "ffmpeg": worker.ffmpeg,
            "batch size": self.batch_size,
        }
        told = ", ".join(f"{name} {_told(fact)}" for name, fact in facts.items())
        return f"{worker.engine} on {self.gpu_class}, {told}"


def measure(config: Config, video: str, audio: str, rounds: int, film: Film) -> Benchmark:
    """Start a worker and have it run a job with a new face and ``rounds`` with a known one.

    ``video`` and ``audio`` are URLs, of files too. Raises :class:`ConfigError` if the worker cannot
    start, and :class:`JobFailed`. Nothing is left, here or elsewhere, but networks that were
    compiled.
    """
    with tempfile.TemporaryDirectory(prefix="musetalk-bench-") as name:
        place = Path(name)
        config = _secluded(config, place)
        # One file for all jobs; with it there are no records, so that no job is answered from one.
        store = FileStore(place / "video.mp4")
        runtime = bootstrap(config, fetch=LocalFetch(web_fetch(config)), store=store)
        # Each gets an id of its own, as it brings none.
        job = {"video_url": video, "audio_url": audio}
        results = [_success(film(job, runtime)) for _ in range(1 + rounds)]
    return Benchmark.of(runtime.worker, results)


def _secluded(config: Config, place: Path) -> Config:
    """Return the settings of a worker that knows no face, and nobody to tell of its jobs."""
    changes = {
        "avatar_cache_dir": place / "faces",
        # What a worker of this machine finds at its start is found here, too.
        "compile_cache_dir": config.compile_cache_dir or config.avatar_cache_dir / "compiled",
        "otlp_endpoint": None,
        "supervised": False,
    }
    return config.without_secrets().model_copy(update=changes)


def _success(result: Result) -> Success:
    if result.status == "failed":
        raise JobFailed(result.error_message)
    return result


def _output(results: Sequence[Success]) -> Output:
    # Only what an older worker left on record may lack it.
    return cast("Output", results[0].output)


def _told(fact: object, unit: str = "") -> str:
    return UNKNOWN if fact is None else f"{fact}{unit}"


def _number(number: float) -> str:
    return f"{number:.{DIGITS}f}"


def _line(name: str, text: str) -> Sequence[str]:
    return textwrap.wrap(f"{name:<{NAMES}}{text}", COLUMNS, subsequent_indent=" " * NAMES)


def _cells(cost: Cost | None) -> Sequence[str]:
    if cost is None:
        return [UNKNOWN] * len(HEADINGS)
    spread = (cost.seconds, cost.fastest_seconds, cost.slowest_seconds)
    numbers = (*spread, cost.seconds_per_minute, cost.frames_per_second)
    return [f"{cost.jobs}", *map(_number, numbers)]


def _row(name: str, *cells: str) -> str:
    return f"{name:<{NAMES}}" + "".join(f"{cell:>{NUMBERS}}" for cell in cells)
