"""Working stand-ins for every port, for our tests and for yours."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from handler.errors import OutputInvalid, SourceUnavailable, StreamMissing
from handler.job import Job
from handler.ports import AudioInfo, Clip, Fetched, Runtime, Scene, Stored, VideoInfo
from handler.progress import Tick
from handler.record import Record
from handler.result import CacheUse, Output, Worker

FAKE_VIDEO = VideoInfo(codec="h264", width=64, height=48, fps=Fraction(25), duration=2.0)
FAKE_AUDIO = AudioInfo(codec="pcm_s16le", rate_hz=16000, channels=1, duration=1.0)


class FakeClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the seconds it was told."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@dataclass
class FakeFetch:
    """Serves bytes from memory; a URL that it does not know is gone."""

    files: dict[str, bytes]

    def __call__(self, url: str, path: Path, tick: Tick) -> Fetched:
        """Write the bytes of a URL to a path."""
        if url not in self.files:
            raise SourceUnavailable("Download failed: 404 Not Found", url=url, status_code=404)
        content = self.files[url]
        path.write_bytes(content)
        tick(1.0)
        return Fetched(path, len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class FakeAvatar:
    """A face that needed no making ready."""

    cache: CacheUse = CacheUse.MISS
    warnings: tuple[str, ...] = ()
    engine_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass
class FakeEngine:
    """Writes a clip of a few bytes; ``fault``, when set, is raised instead."""

    frames: int = 25
    fault: Exception | None = None
    clock: FakeClock | None = None
    #: Seconds that the clock goes on in each step.
    seconds: float = 1.0

    def prepare(self, scene: Scene, tick: Tick) -> FakeAvatar:
        """Return the avatar that every scene shares."""
        self._spend()
        tick(1.0)
        return FakeAvatar()

    def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        """Write a clip that :class:`FakeProbe` can read back."""
        for frame in range(self.frames):
            tick(frame / self.frames)
        self._spend()
        if self.fault is not None:
            raise self.fault
        target.write_text(str(self.frames))
        tick(1.0)
        video = scene.video
        return Clip(
            path=target,
            width=video.width,
            height=video.height,
            fps=video.fps or Fraction(25),
            frames=self.frames,
            generation_seconds=self.seconds,
        )

    def _spend(self) -> None:
        if self.clock is not None:
            self.clock.advance(self.seconds)


@dataclass
class FakeProbe:
    """Takes every non-empty file for the same picture, the same sound, or a fake engine's clip."""

    video: VideoInfo = FAKE_VIDEO
    audio: AudioInfo = FAKE_AUDIO

    def face(self, path: Path) -> VideoInfo:
        """Return the one picture it knows."""
        _refuse_empty(path)
        return self.video

    def voice(self, path: Path) -> AudioInfo:
        """Return the one sound it knows."""
        _refuse_empty(path)
        return self.audio

    def output(self, path: Path) -> Output:
        """Describe what a fake engine wrote."""
        content = path.read_bytes()
        if not content.isdigit():
            raise OutputInvalid("The finished video cannot be read back.")
        frames = int(content)
        return Output(
            width=self.video.width,
            height=self.video.height,
            fps="25/1",
            frames=frames,
            duration=frames / 25,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            video_codec="h264",
            audio_codec="aac",
        )


def _refuse_empty(path: Path) -> None:
    if not path.stat().st_size:
        raise StreamMissing("The file is empty.")


@dataclass
class MemoryStore:
    """Keeps finished videos in memory, by the id of their job."""

    videos: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, path: Path, job: Job, tick: Tick) -> Stored:
        """Keep a video."""
        self.videos[job.musetalk_job_id] = path.read_bytes()
        tick(1.0)
        return Stored(f"memory://{job.musetalk_job_id}.mp4")


@dataclass
class MemoryRecords:
    """Keeps records in memory, by the id of their job; the first to come counts."""

    kept: dict[str, Record] = field(default_factory=dict)

    def find(self, job: Job, tick: Tick) -> Record | None:
        """Return what is known of a job."""
        return self.kept.get(job.musetalk_job_id)

    def commit(self, job: Job, record: Record, tick: Tick) -> Record:
        """Keep a record, unless there is one."""
        tick(1.0)
        return self.kept.setdefault(job.musetalk_job_id, record)


@dataclass
class FakeWorkspace:
    """Lends temporary directories and remembers where they were."""

    lent: list[Path] = field(default_factory=list)

    @contextmanager
    def __call__(self) -> Iterator[Path]:
        """Lend one."""
        with tempfile.TemporaryDirectory() as name:
            self.lent.append(Path(name))
            yield self.lent[-1]


@dataclass
class MemoryWebhooks:
    """Remembers what would have been delivered."""

    delivered: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def __call__(self, url: str, result: Mapping[str, Any]) -> None:
        """Remember one delivery."""
        self.delivered.append((url, result))


FAKE_FILES = {
    "https://example.com/video.mp4": b"a face",
    "https://example.com/audio.wav": b"a voice",
}


def fake_runtime(**ports: Any) -> Runtime:
    """Build a runtime of fakes that does the contract's sample job; name a port to replace it."""
    clock = FakeClock()
    runtime = Runtime(
        engine=FakeEngine(clock=clock),
        fetch=FakeFetch(dict(FAKE_FILES)),
        store=MemoryStore(),
        probe=FakeProbe(),
        workspace=FakeWorkspace(),
        notify=MemoryWebhooks(),
        clock=clock,
        worker=Worker(version="0", engine="fake", worker_id="fake"),
        gpu_class="fake",
        job_timeout_seconds=1800,
        records=MemoryRecords(),
    )
    return replace(runtime, **ports)
