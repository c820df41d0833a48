"""Film a scene: prepare the face once, then animate it, whatever it is that moves the mouth."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import TypeVar

from handler.errors import (
    FaceNotFound,
    MediaUnreadable,
    OutputInvalid,
    ProcessingError,
    Stage,
)
from handler.job import Params
from handler.ports import Clip, Scene
from handler.progress import Tick
from inference.avatar import Avatar, AvatarFrame, AvatarWriter
from inference.avatar_cache import AvatarCache, cache_key
from inference.batching import Batch
from inference.compositing import paste
from inference.footage import Footage
from inference.frame import Box, Frame, Planes
from inference.media.encoder import Encoder
from inference.media.framing import aspect_warning
from inference.media.limits import LEAST_SHARE_OF_DECLARED, Limits
from inference.media.sound import read_samples
from inference.media.write import ClipSpec, write_clip
from inference.meter import Meter
from inference.mouth import Shot
from inference.parts import FACE_OPTIONS, Parts
from inference.pipeline import ahead
from inference.timeline import passes

#: Frames that wait between two steps: enough to even out their speeds, few enough for 4K.
DEPTH = 4
#: How often a job that waits for another's end asks whether it is still wanted.
TURN_SECONDS = 0.5

Item = TypeVar("Item")


class LipSync:
    """Implement the core's ``Engine``: one job at a time, reading, timing and encoding its own."""

    def __init__(self, parts: Parts, cache: AvatarCache, limits: Limits, encoder: Encoder) -> None:
        """Film with these parts; remember faces in ``cache``."""
        self._parts = parts
        self._cache = cache
        self._limits = limits
        self._encoder = encoder
        self._turn = threading.Lock()

    def prepare(self, scene: Scene, tick: Tick) -> Avatar:
        """Find the face in each frame that can be shown, or remember it.

        Raises :class:`FaceNotFound`, or :class:`MediaUnreadable` if the video cannot be decoded.
        """
        footage = Footage(scene, self._limits)
        needed = footage.source_frames
        key = self._key(footage)
        with self._my_turn(tick):
            if self._parts.memory:
                self._parts.memory.reset_peak()
            avatar = self._cache.load(key)
            if avatar is None or not avatar.covers(needed):
                avatar = self._remember(key, self._make(footage, tick))
        # What is known of the video beyond this voice is none of this job's business.
        avatar = avatar.first(needed)
        if avatar.missing == len(avatar):
            raise FaceNotFound("No face was found in any frame of the video.")
        tick(1.0)
        warnings = (*avatar.warnings, *aspect_warning(scene.video, scene.job), *self._unused(scene))
        if avatar.missing:
            warnings += (f"{avatar.missing} of {len(avatar)} frames show no face and were kept.",)
        return replace(avatar, warnings=warnings)

    def animate(self, avatar: Avatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        """Write the talking face to ``target``, one frame after the other."""
        footage, meter, batch = Footage(scene, self._limits), Meter(), self._batch(scene)
        spec = footage.clip(len(avatar), self._encoder)
        with self._my_turn(tick):
            with (
                ahead(self._frames(avatar, footage, spec), DEPTH) as frames,
                ahead(self._spoken(avatar, frames, footage, spec, batch, meter), DEPTH) as spoken,
                ahead(_pasted(spoken, meter), DEPTH) as pictures,
                meter.busy("encode"),
            ):
                ticked = _ticked(meter.waiting("encode", pictures), spec.frames, tick)
                written = write_clip(ticked, target, spec, self._limits)
            peak = self._parts.memory.peak_mib() if self._parts.memory else None
        if written != spec.frames:
            raise OutputInvalid(f"{written} frames were written where {spec.frames} were due.")
        tick(1.0)
        return Clip(
            path=target,
            width=spec.width,
            height=spec.height,
            fps=spec.fps,
            frames=written,
            generation_seconds=meter.seconds["mouth"],
            engine_seconds=meter.seconds,
            batch_size=batch.size if "batch_size" in self._parts.options else None,
            peak_vram_mib=peak,
        )

    def check(self) -> None:
        """Have the device do the least that shows that it works; raise if it does not."""
        self._parts.check()

    @contextmanager
    def _my_turn(self, tick: Tick) -> Iterator[None]:
        while not self._turn.acquire(timeout=TURN_SECONDS):
            tick(0.0)
        try:
            yield
        finally:
            self._turn.release()

    def _batch(self, scene: Scene) -> Batch:
        ceiling = self._parts.batch_size
        return Batch(min(scene.job.params.batch_size or ceiling, ceiling))

    def _make(self, footage: Footage, tick: Tick) -> Avatar:
        """Track the face through the frames, then learn what its mouth will need."""
        meter, reader, batch = Meter(), footage.reader, self._batch(footage.scene)
        most, size = footage.most_frames, footage.framing.canvas
        faces = self._track(footage, batch, meter, lambda done: tick(done / 2))
        complete, faces = len(faces) <= most, faces[:most]
        params = footage.scene.job.params
        frames = _read(reader.forward(0, len(faces)), "make", meter)
        with closing(frames), meter.busy("make"):
            ticked = _ticked(frames, len(faces), lambda done: tick((1 + done) / 2))
            made = self._parts.maker.make(faces, ticked, size, params, batch)
            avatar = _written(made, footage.scene.face.path.parent, complete=complete)
        if len(avatar) < len(faces):
            raise MediaUnreadable(f"The video ended before its frame {len(avatar)}.")
        return replace(avatar, engine_seconds=meter.seconds)

    def _track(
        self, footage: Footage, batch: Batch, meter: Meter, tick: Tick
    ) -> Sequence[Box | None]:
        reader, expected = footage.reader, footage.expected_frames
        # One more than can be shown, to know whether that was all.
        frames = _read(reader.forward(0, footage.most_frames + 1), "track", meter)
        with closing(frames), meter.busy("track"):
            ticked, params = _ticked(frames, expected, tick), footage.scene.job.params
            faces = self._parts.tracker.track(ticked, footage.fps, params, batch)
        if len(faces) < LEAST_SHARE_OF_DECLARED * expected:
            raise MediaUnreadable(
                f"The video is cut off: it declares {footage.scene.video.duration:.2f} s and holds"
                f" {float(len(faces) / footage.fps):.2f} s.",
                stage=Stage.VALIDATION,
            )
        return faces

    def _remember(self, key: str, avatar: Avatar) -> Avatar:
        """Save a face for the next job; that it cannot be saved is no reason to lose this one."""
        try:
            self._cache.save(key, avatar)
        except OSError as error:
            warning = f"The face could not be remembered: {error.strerror}."
            return replace(avatar, warnings=(warning,))
        return avatar

    def _frames(
        self, avatar: Avatar, footage: Footage, spec: ClipSpec
    ) -> Iterator[tuple[int, Frame]]:
        source = len(avatar)
        shown = passes(footage.scene.job.sync_mode, source, spec.frames)
        yield from footage.reader.play(shown, source)

    def _spoken(
        self,
        avatar: Avatar,
        frames: Iterable[tuple[int, Frame]],
        footage: Footage,
        spec: ClipSpec,
        batch: Batch,
        meter: Meter,
    ) -> Iterator[tuple[Shot, Planes | None]]:
        speaking = min(footage.voice_frames, spec.frames)
        with closing(read_samples(spec.voice, self._limits)) as sound:
            cues = meter.working("listen", self._parts.mouth.listen(sound, spec.fps, speaking))
            # Where the voice has ended, mouths are left as they are.
            heard = chain(meter.waiting("mouth", cues), repeat(None))
            shots = (
                Shot(frame, avatar.frame(index), cue)
                for (index, frame), cue in zip(meter.waiting("mouth", frames), heard, strict=False)
            )
            yield from meter.working("mouth", self._parts.mouth.speak(shots, batch))

    def _unused(self, scene: Scene) -> tuple[str, ...]:
        given, default = scene.job.params, Params()
        return tuple(
            f"params.{name} has no effect with the {self._parts.name} engine."
            for name in sorted(FACE_OPTIONS - self._parts.options)
            if getattr(given, name) != getattr(default, name)
        )

    def _key(self, footage: Footage) -> str:
        # How many frames a network takes at once is no part of what it says of each.
        options = set(self._parts.options) - {"batch_size"}
        return cache_key(
            **footage.identity(),
            engine=self._parts.name,
            weights=self._parts.weights,
            precision=self._parts.precision,
            options=footage.scene.job.params.model_dump(mode="json", include=options),
        )


def _read(frames: Iterator[Frame], step: str, meter: Meter) -> Generator[Frame, None, None]:
    """Decode ahead of a step, from when it asks for the first frame on."""
    with ahead(frames, DEPTH) as decoded:
        yield from meter.waiting(step, decoded)


def _pasted(spoken: Iterable[tuple[Shot, Planes | None]], meter: Meter) -> Iterator[Frame]:
    for shot, face in spoken:
        if face is None or shot.place is None:
            yield shot.frame
        else:
            with meter.busy("paste"):
                picture = paste(shot.frame, face, shot.place.box, shot.place.mask)
            yield picture


def _written(made: Iterable[AvatarFrame | None], workspace: Path, *, complete: bool) -> Avatar:
    """Write an avatar to a file without a name, which dies with whoever uses it.

    Raises :class:`ProcessingError` if the disk takes no more.
    """
    try:
        with tempfile.TemporaryFile(dir=workspace) as file:
            writer = AvatarWriter(file)
            for frame in made:
                writer.add(frame)
            return writer.finish(complete=complete)
    except OSError as error:
        raise ProcessingError(
            f"The face could not be kept: {error.strerror}. Make room where TMPDIR points."
        ) from error


def _ticked(items: Iterable[Item], expected: int, tick: Tick) -> Iterator[Item]:
    for done, item in enumerate(items):
        tick(min(1.0, done / expected))
        yield item
