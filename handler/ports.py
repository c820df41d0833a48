"""What the core asks of the world, and the records that pass between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeVar

from handler.errors import Stage
from handler.job import Job
from handler.progress import Tick
from handler.record import Record
from handler.result import CacheUse, Output, Result, Worker

#: How a stored picture is to be shown: (a, b, c, d) of its display matrix, each -1, 0 or 1.
Orientation = tuple[int, int, int, int]
UPRIGHT: Orientation = (1, 0, 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """Describe a picture stream as a viewer sees it: turned upright, with square pixels."""

    codec: str
    width: int
    height: int
    #: Frames a second at which the picture is read; None for a still image.
    fps: Fraction | None
    #: Seconds, as declared; 0 for a still image.
    duration: float
    #: What the reader needs to know and nobody else does.
    pixel_format: str = "yuv420p"
    color: Mapping[str, str] = field(default_factory=dict)
    start_time: float = 0.0
    sample_aspect: Fraction = Fraction(1)
    orientation: Orientation = UPRIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInfo:
    """Describe a sound stream; ``duration`` is in seconds, as declared or as measured."""

    codec: str
    rate_hz: int
    channels: int
    duration: float


@dataclass(frozen=True, slots=True)
class Fetched:
    """Say what a download brought."""

    path: Path
    bytes: int
    sha256: str
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Content:
    """Say what a file holds."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Stored:
    """Say where a finished video can be had."""

    url: str
    attempts: int = 1
    #: What lies there, if the store knows: it may be what another worker made of the same job.
    content: Content | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Hold what an engine films: a face, a voice, and the job's wishes."""

    face: Fetched
    video: VideoInfo
    voice: Fetched
    audio: AudioInfo
    job: Job


class Avatar(Protocol):
    """A face made ready by an engine; the core only asks whether it was known already."""

    @property
    def cache(self) -> CacheUse:
        """Return whether the face was known."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what the caller should know about the face."""

    @property
    def engine_seconds(self) -> Mapping[str, float]:
        """Return the busy seconds of each step that made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Say what an engine wrote, and what it cost."""

    path: Path
    width: int
    height: int
    fps: Fraction
    frames: int
    #: Seconds in which the networks (or what stands for them) ran.
    generation_seconds: float
    engine_seconds: Mapping[str, float] = field(default_factory=dict)
    batch_size: int | None = None
    peak_vram_mib: float | None = None
    warnings: tuple[str, ...] = ()


AvatarT = TypeVar("AvatarT", bound=Avatar)


class Engine(Protocol[AvatarT]):
    """Films a scene in two steps: the costly one depends on the face alone."""

    def prepare(self, scene: Scene, tick: Tick) -> AvatarT:
        """Make the face ready; raise :class:`FaceNotFound` if there is none."""

    def animate(self, avatar: AvatarT, scene: Scene, target: Path, tick: Tick) -> Clip:
        """Write the talking face to ``target`` and say how many frames it has."""


class Probe(Protocol):
    """Opens untrusted media and lets through only what can be worked with."""

    def face(self, path: Path) -> VideoInfo:
        """Describe the picture; raise :class:`MediaError` if it is none or not acceptable."""

    def voice(self, path: Path) -> AudioInfo:
        """Describe the sound, its duration measured; raise :class:`MediaError` if unacceptable."""

    def output(self, path: Path) -> Output:
        """Describe a finished clip; raise :class:`OutputInvalid` if it cannot be read back."""


#: Bring a URL's bytes to a path; raise SourceUnavailable, MediaTooLarge or FetchFailed.
Fetch = Callable[[str, Path, Tick], Fetched]

#: Put a finished video where its job wants it; raise StoreFailed or IdempotencyConflict.
Store = Callable[[Path, Job, Tick], Stored]


class Records(Protocol):
    """Remembers what jobs ended with, where every worker of the same store can look it up."""

    def find(self, job: Job, tick: Tick) -> Record | None:
        """Return what is on record for a job's id, unless its video is gone or was replaced.

        Raises :class:`StoreFailed` if that cannot be found out.
        """

    def commit(self, job: Job, record: Record, tick: Tick) -> Record:
        """Put a job on record and return what counts: this, or what another worker put there first.

        ``tick`` may stop it for as long as nothing is written. Raises :class:`StoreFailed`.
        """


class NoRecords:
    """Remembers nothing: every delivery of a job is a new one."""

    def find(self, job: Job, tick: Tick) -> None:
        """Know of no job."""

    def commit(self, job: Job, record: Record, tick: Tick) -> Record:
        """Let every success count."""
        return record


#: Take down the stage that a job enters.
Note = Callable[[Stage], None]

#: Take down which job is in hand, so that it is known which one killed a worker; raise PoisonJob
#: for one that did so too often.
Journal = Callable[[str], AbstractContextManager[Note]]


def note_nothing(stage: Stage) -> None:
    """Let a stage go by."""


def no_journal(job_id: str) -> AbstractContextManager[Note]:
    """Let every job go by."""
    return nullcontext(note_nothing)


#: Lend an empty directory to one job; every byte in it dies with the job.
Workspace = Callable[[], AbstractContextManager[Path]]

#: Deliver a result to a webhook URL; never raises.
Notify = Callable[[str, Mapping[str, Any]], None]

#: Take note of a result, and of how many seconds its job took; what it raises is of no concern.
Observe = Callable[[Result, float], None]


def overlook(result: Result, seconds: float) -> None:
    """Let a result go by."""


#: Seconds on a clock that never goes back.
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Hold all that outlives a job: built once at cold start, shared by every job."""

    engine: Engine[Any]
    fetch: Fetch
    store: Store
    probe: Probe
    workspace: Workspace
    notify: Notify
    clock: Clock
    worker: Worker
    gpu_class: str
    #: Seconds a job may take if it does not say so itself.
    job_timeout_seconds: float
    records: Records = field(default_factory=NoRecords)
    journal: Journal = no_journal
    observe: Observe = overlook
