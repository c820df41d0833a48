"""Run one job: fetch, check, prepare, animate, verify, store, put on record. No platform here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.errors import (
    DeadlineExceeded,
    IdempotencyConflict,
    MediaError,
    OutOfMemory,
    OutputInvalid,
    Stage,
    WorkerBroken,
)
from handler.fingerprint import fingerprint
from handler.job import Job, job_id_of
from handler.ports import (
    Avatar,
    Clip,
    Fetched,
    NoRecords,
    Note,
    Records,
    Runtime,
    Scene,
    Stored,
    note_nothing,
)
from handler.progress import Phase, Report, Reporter, Tick, ignore
from handler.record import Record
from handler.redaction import redact_all
from handler.result import Failure, Metrics, Output, Result, Success
from handler.stopwatch import Stopwatch

#: Preparing a face takes about this share of the engine's time.
PREPARE_SHARE = 0.3


def handle(raw: Mapping[str, Any], runtime: Runtime, report: Report = ignore) -> Result:
    """Run one job and return what came of it.

    A job's own failure is a :class:`Failure`, never an exception. Only :class:`WorkerBroken` comes
    out as one, carrying the failure to answer with: the process must take no other job. ``report``
    may raise :class:`Cancelled` to take the job back.
    """
    run = _Run(raw, runtime, report)
    try:
        result: Result = run.film()
    except WorkerBroken as broken:
        broken.failure = run.failure(broken)
        run.announce(broken.failure)
        raise
    except MemoryError:
        result = run.failure(OutOfMemory("The job does not fit into this worker's memory."))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a bug, too, must be answered
        result = run.failure(error)
    run.announce(result)
    return result


@dataclass(frozen=True, slots=True)
class _Take:
    """What the engine made of a scene."""

    scene: Scene
    clip: Clip
    avatar: Avatar


class _Run:
    """What one job needs while it runs, and nothing after."""

    def __init__(self, raw: Mapping[str, Any], runtime: Runtime, report: Report) -> None:
        self._raw = raw
        self._runtime = runtime
        self._watch = Stopwatch(runtime.clock)
        self._reporter = Reporter(report, self._check_deadline)
        self._deadline_seconds = runtime.job_timeout_seconds
        self._job: Job | None = None
        self._note: Note = note_nothing

    def film(self) -> Success:
        """Take the job from its URLs to its stored video, unless that is there already."""
        self._job = job = Job.parse(self._raw)
        if job.deadline_seconds is not None:
            self._deadline_seconds = job.deadline_seconds
        if done := self._on_record(job, self._reporter.step(Phase.DOWNLOADING, 0.0, 0.0)):
            return done
        with self._runtime.journal(job.musetalk_job_id) as self._note:
            with self._runtime.workspace() as files:
                self._enter(Stage.DOWNLOAD)
                scene = self._scene(job, *self._fetch(job, files))
                take = self._animate(scene, files / "output.mp4")
                return self._deliver(take, self._verify(take.clip))

    def failure(self, error: BaseException) -> Failure:
        """Describe what went wrong in the words of the contract."""
        return Failure.of(
            error,
            self._watch.stage,
            stage_times=self._watch.finished,
            musetalk_job_id=self._job.musetalk_job_id if self._job else job_id_of(self._raw),
            worker=self._runtime.worker,
            metadata=self._job.metadata if self._job else {},
        )

    def announce(self, result: Result) -> None:
        """Tell whoever asked that the job has ended; a listener's trouble cannot change that."""
        with contextlib.suppress(Exception):
            done = isinstance(result, Success)
            self._reporter.finish(Phase.COMPLETED if done else Phase.FAILED)
        with contextlib.suppress(Exception):
            if self._job and self._job.webhook_url:
                self._runtime.notify(self._job.webhook_url, result.to_json())
        with contextlib.suppress(Exception):
            self._runtime.observe(result, self._watch.elapsed)

    def _enter(self, stage: Stage) -> None:
        self._note(stage)
        self._watch.enter(stage)

    def _fetch(self, job: Job, files: Path) -> tuple[Fetched, Fetched]:
        face_tick = self._reporter.step(Phase.DOWNLOADING, 0.0, 0.5)
        face_tick(0.0)
        face = self._runtime.fetch(job.video_url, files / "face.bin", face_tick)
        voice_tick = self._reporter.step(Phase.DOWNLOADING, 0.5, 1.0)
        voice_tick(0.0)
        return face, self._runtime.fetch(job.audio_url, files / "voice.bin", voice_tick)

    def _scene(self, job: Job, face: Fetched, voice: Fetched) -> Scene:
        self._enter(Stage.VALIDATION)
        probe = self._runtime.probe
        with ThreadPoolExecutor(1) as meanwhile:
            audio = meanwhile.submit(probe.voice, voice.path)
            with _about("video_url"):
                video = probe.face(face.path)
        with _about("audio_url"):
            return Scene(face=face, video=video, voice=voice, audio=audio.result(), job=job)

    def _animate(self, scene: Scene, target: Path) -> _Take:
        engine, step = self._runtime.engine, self._reporter.step
        self._enter(Stage.PREPROCESSING)
        avatar = engine.prepare(scene, step(Phase.INFERRING, 0.0, PREPARE_SHARE))
        self._enter(Stage.INFERENCE)
        clip = engine.animate(avatar, scene, target, step(Phase.INFERRING, PREPARE_SHARE, 1.0))
        return _Take(scene, clip, avatar)

    def _verify(self, clip: Clip) -> Output:
        """Read the finished clip back: one that is not what was asked for is not delivered."""
        self._enter(Stage.POSTPROCESSING)
        self._reporter.step(Phase.ENCODING)(1.0)
        output = self._runtime.probe.output(clip.path)
        promised = (clip.frames, clip.width, clip.height)
        if (output.frames, output.width, output.height) != promised:
            raise OutputInvalid(
                f"The finished video has {output.frames} frames of {output.width}x{output.height}"
                f" where {clip.frames} of {clip.width}x{clip.height} were written."
            )
        return output

    def _deliver(self, take: _Take, output: Output) -> Success:
        """Store the video, put the job on record, and answer with what is on record then."""
        self._enter(Stage.UPLOAD)
        job, tick = take.scene.job, self._reporter.step(Phase.UPLOADING)
        tick(0.0)
        # Another worker may have been given the same job, and been faster.
        if done := self._on_record(job, tick):
            return done
        stored = self._runtime.store(take.clip.path, job, tick)
        self._watch.finish()
        record = Record(self._fingerprint(job), self._success(take, output, stored))
        counting = self._records(job).commit(job, record, tick)
        return record.success if counting is record else self._replay(counting, job)

    def _on_record(self, job: Job, tick: Tick) -> Success | None:
        record = self._records(job).find(job, tick)
        return self._replay(record, job) if record else None

    def _replay(self, record: Record, job: Job) -> Success:
        if record.fingerprint != self._fingerprint(job):
            raise IdempotencyConflict.over(job.musetalk_job_id)
        return record.replay(job.metadata)

    def _records(self, job: Job) -> Records:
        """Return where the job is put on record: where only a caller may write, there is none."""
        presigned = job.output is not None and job.output.put_url is not None
        return NoRecords() if presigned else self._runtime.records

    def _fingerprint(self, job: Job) -> str:
        return fingerprint(job, self._runtime.worker.engine, self._runtime.worker.weights)

    def _success(self, take: _Take, output: Output, stored: Stored) -> Success:
        job, content = take.scene.job, stored.content
        return Success(
            output_url=stored.url,
            musetalk_job_id=job.musetalk_job_id,
            metrics=self._metrics(take, stored),
            warnings=redact_all((*take.avatar.warnings, *take.clip.warnings)),
            metadata=job.metadata,
            output=output.holding(content.bytes, content.sha256) if content else output,
            worker=self._runtime.worker,
        )

    def _metrics(self, take: _Take, stored: Stored) -> Metrics:
        seconds, clip, scene = self._watch.seconds, take.clip, take.scene
        busy = {**take.avatar.engine_seconds, **clip.engine_seconds}
        return Metrics(
            GENERATION_TIME_SEC=round(clip.generation_seconds, 4),
            SCRIPT_WALL_TIME_SEC=seconds["inference"],
            PEAK_VRAM_MIB=clip.peak_vram_mib,
            gpu_class=self._runtime.gpu_class,
            stage_times=seconds,
            total_time=round(self._watch.total, 4),
            frames=clip.frames,
            batch_size=clip.batch_size,
            avatar_cache=take.avatar.cache,
            engine_times={step: round(spent, 4) for step, spent in busy.items()},
            attempts={
                "video": scene.face.attempts,
                "audio": scene.voice.attempts,
                "upload": stored.attempts,
            },
        )

    def _check_deadline(self) -> None:
        if self._watch.elapsed > self._deadline_seconds:
            raise DeadlineExceeded(
                f"The job took longer than its deadline of {self._deadline_seconds:g} s.",
                deadline_seconds=self._deadline_seconds,
            )


@contextlib.contextmanager
def _about(field: str) -> Iterator[None]:
    """Have what is wrong with media say which of the two it is."""
    try:
        yield
    except MediaError as error:
        error.details = {"field": field, **error.details}
        raise
