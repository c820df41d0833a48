"""Films as a worker makes them: with frames in memory, and whole jobs where there is ffmpeg."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import repeat
from pathlib import Path

import numpy as np

from bench.footage import Footage
from bench.jobs import Studio
from bench.stand import Stand
from handler.job import Params
from handler.result import Metrics
from inference.avatar import Avatar, AvatarWriter
from inference.batching import Batch
from inference.compositing import paste
from inference.engine import DEPTH
from inference.frame import Box, Frame
from inference.media.sound import RATE_HZ
from inference.mouth import Shot
from inference.musetalk.models import Networks
from inference.musetalk.parts import ReadMuseTalk, musetalk_parts
from inference.parts import Parts
from inference.pipeline import ahead

FPS = Fraction(25)
#: A worker on a GPU is to film so many frames a second of a face that it knows, in so much memory.
JOB_FPS, MEMORY_MIB = 150, 4096
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Crew:
    """Hold a worker's parts, and how its rows are to be called."""

    name: str
    parts: Parts
    stand: Stand


def hire(
    stand: Stand, networks: Networks, frame: tuple[int, int], cache: Path | None = None
) -> Crew:
    """Put a worker together whose tracker sees one face, at no cost, in frames of one shape.

    With ``cache`` its generator is compiled.
    """
    # Needs the package onnx, without which all but films can be measured.
    from tests.tiny_dwpose import write_tiny_dwpose  # noqa: PLC0415
    from tests.tiny_musetalk import SAMPLE_FACE  # noqa: PLC0415

    tracker = write_tiny_dwpose(stand.scratch / "dwpose.onnx", SAMPLE_FACE, frame)
    read = ReadMuseTalk(networks, tracker, "random")
    parts = musetalk_parts(read, stand.device, stand.plan.batch, cache)
    return Crew("compiled" if cache else "eager", parts, stand)


def film_in_memory(crew: Crew) -> None:
    """Report frames a second without decoding and encoding."""
    stand, (frames, width, height) = crew.stand, crew.stand.plan.reel
    noise = np.random.default_rng(0).integers(0, 256, Frame.size_bytes(width, height), np.uint8)
    frame = Frame(noise, width, height)
    start = time.perf_counter()
    avatar = _avatar(crew, frame, frames)
    made = frames / (time.perf_counter() - start)
    start = time.perf_counter()
    _speak(crew, avatar, frame)
    spoken = frames / (time.perf_counter() - start)
    name = f"in memory, {height}p, {crew.name}"
    stand.report.row(f"{name}: face new", f"{made:.0f} fps")
    stand.report.row(f"{name}: face known", f"{spoken:.0f} fps", "", f"≥ {JOB_FPS} fps")


def _avatar(crew: Crew, frame: Frame, frames: int) -> Avatar:
    width, height = frame.width, frame.height
    face = Box(3 * width // 8, height // 6, 5 * width // 8, 2 * height // 3)
    size, batch = (width, height), Batch(crew.parts.batch_size)
    pictures = repeat(frame, frames)
    with tempfile.TemporaryFile(dir=crew.stand.scratch) as file:
        writer = AvatarWriter(file)
        for made in crew.parts.maker.make([face] * frames, pictures, size, Params(), batch):
            writer.add(made)
        return writer.finish(complete=True)


def _speak(crew: Crew, avatar: Avatar, frame: Frame) -> None:
    frames, mouth = len(avatar), crew.parts.mouth
    sound = np.random.default_rng(0).standard_normal(int(frames / FPS * RATE_HZ), np.float32)
    cues = mouth.listen([sound], FPS, frames)
    shots: Iterable[Shot] = (Shot(frame, avatar.frame(i), cue) for i, cue in enumerate(cues))
    with ahead(mouth.speak(shots, Batch(crew.parts.batch_size)), DEPTH) as spoken:
        for shot, face in spoken:
            if face is None or shot.place is None:
                raise RuntimeError("A face was lost: what is measured is not what is meant.")
            paste(shot.frame, face, shot.place.box, shot.place.mask)


def film_jobs(crew: Crew, width: int, height: int) -> None:
    """Report frames a second of whole jobs, the memory they take, and what each step was busy."""
    if shutil.which("ffmpeg") is None:
        crew.stand.report.row("whole jobs", "left out: there is no ffmpeg here")
        return
    scratch = crew.stand.scratch / f"{crew.name}-{height}p"
    scratch.mkdir()
    clip = Footage.given([]).cut(scratch, crew.stand.plan.clip_seconds, width, height)
    studio, name = Studio.bare(crew.parts, scratch), f"job, {height}p, {crew.name}"
    _report_job(crew.stand, f"{name}: face new", studio.film_anew(clip).metrics)
    known = sorted((studio.film(clip).metrics for _ in range(ROUNDS)), key=_seconds)
    _report_job(crew.stand, f"{name}: face known", known[ROUNDS // 2], f"≥ {JOB_FPS} fps")


def _seconds(metrics: Metrics) -> float:
    return metrics.total_time


def _report_job(stand: Stand, name: str, metrics: Metrics, promised: str = "") -> None:
    frames = metrics.frames or 0
    stand.report.row(name, f"{frames / metrics.total_time:.0f} fps", "", promised)
    if metrics.peak_vram_mib is not None:
        memory = f"{metrics.peak_vram_mib:.0f} MiB"
        stand.report.row("  its peak of memory", memory, "", f"≤ {MEMORY_MIB} MiB")
    for step, busy in metrics.engine_times.items():
        stand.report.row(f"  of that busy: {step}", f"{1000 * busy / frames:.1f} ms a frame")
