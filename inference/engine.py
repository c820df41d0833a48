"""Film a scene: prepare the face once, then animate it, whatever it is that moves the mouth."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TypeVar

from handler.errors import FaceNotFound, MediaUnreadable, OutputInvalid, Stage
from handler.job import Params
from handler.ports import Clip, Scene
from handler.progress import Tick
from inference.avatar import Avatar
from inference.avatar_cache import AvatarCache, cache_key
from inference.compositing import paste
from inference.faces import FaceTracker
from inference.frame import Frame
from inference.masks import FaceMask
from inference.media.color import color_tags
from inference.media.framing import Framing, aspect_warning, frame_picture
from inference.media.limits import Limits
from inference.media.read import FrameReader
from inference.media.sound import read_samples
from inference.media.write import ClipSpec, write_clip
from inference.meter import Meter
from inference.mouth import Mouth, Shot
from inference.pipeline import ahead
from inference.timeline import output_frames, passes, source_frames_needed, voice_frames

#: Frames that wait between two steps: enough to even out their speeds, few enough for 4K.
DEPTH = 4
#: A video that holds less than this share of the length it declares is cut off.
LEAST_SHARE_OF_DECLARED = 0.9

#: The options of a job that only an engine can heed.
FACE_OPTIONS = frozenset(
    {
        "bbox_shift",
        "extra_margin",
        "parsing_mode",
        "left_cheek_width",
        "right_cheek_width",
        "batch_size",
    }
)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Hold what makes one engine differ from another."""

    name: str
    weights: str | None
    tracker: FaceTracker
    mask: FaceMask
    mouth: Mouth
    #: The job's options that it heeds; any other draws a warning.
    options: frozenset[str]


class LipSync:
    """Implement the core's ``Engine``: one job at a time, reading, timing and encoding its own."""

    def __init__(self, parts: Parts, cache: AvatarCache, limits: Limits) -> None:
        """Film with these parts; remember faces in ``cache``."""
        self._parts = parts
        self._cache = cache
        self._limits = limits
        self._turn = threading.Lock()

    def prepare(self, scene: Scene, tick: Tick) -> Avatar:
        """Find the face in each frame that can be shown, or remember it.

        Raises :class:`FaceNotFound`, or :class:`MediaUnreadable` if the video cannot be decoded.
        """
        needed = source_frames_needed(scene.job.sync_mode, _voice_frames(scene))
        key = self._key(scene)
        with self._turn:
            avatar = self._cache.load(key)
            if avatar is None or not avatar.covers(needed):
                avatar = self._remember(key, self._track(scene, needed, tick))
        # What is known of the video beyond this voice is none of this job's business.
        avatar = replace(avatar, frames=avatar.frames[:needed])
        missing = sum(frame is None for frame in avatar.frames)
        if missing == len(avatar.frames):
            raise FaceNotFound("No face was found in any frame of the video.")
        tick(1.0)
        warnings = (*aspect_warning(scene.video, scene.job), *self._unused(scene))
        if missing:
            warnings += (f"{missing} of {len(avatar.frames)} frames show no face and were kept.",)
        return replace(avatar, warnings=(*avatar.warnings, *warnings))

    def animate(self, avatar: Avatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        """Write the talking face to ``target``, one frame after the other."""
        meter, job = Meter(), scene.job
        total = output_frames(job.sync_mode, _voice_frames(scene), len(avatar.frames))
        spec = self._spec(scene, total)
        with self._turn:
            source = len(avatar.frames)
            shown = self._reader(scene).play(passes(job.sync_mode, source, total), source)
            with (
                ahead(shown, DEPTH) as frames,
                ahead(self._pictures(avatar, frames, spec, meter), DEPTH) as pictures,
                meter.busy("encode"),
            ):
                ticked = _ticked(meter.waiting("encode", pictures), total, tick)
                written = write_clip(ticked, target, spec, self._limits)
        if written != total:
            raise OutputInvalid(f"{written} frames were written where {total} were due.")
        tick(1.0)
        return Clip(
            path=target,
            width=spec.width,
            height=spec.height,
            fps=spec.fps,
            frames=written,
            generation_seconds=meter.seconds["mouth"],
            engine_seconds=meter.seconds,
        )

    def _remember(self, key: str, avatar: Avatar) -> Avatar:
        """Save a face for the next job; that it cannot be saved is no reason to lose this one."""
        try:
            self._cache.save(key, avatar)
        except OSError as error:
            warning = f"The face could not be remembered: {error.strerror}."
            return replace(avatar, warnings=(warning,))
        return avatar

    def _track(self, scene: Scene, needed: int | None, tick: Tick) -> Avatar:
        reader, meter = self._reader(scene), Meter()
        most = ceil(self._limits.max_video_seconds * reader.fps) if needed is None else needed
        declared = max(1, int(Fraction(scene.video.duration) * reader.fps))
        expected = min(most, declared)
        # One more than can be shown, to know whether that was all.
        with ahead(reader.forward(0, most + 1), DEPTH) as frames, meter.busy("track"):
            ticked = _ticked(meter.waiting("track", frames), expected, tick)
            faces = self._parts.tracker.track(ticked, reader.fps)
        if len(faces) < LEAST_SHARE_OF_DECLARED * expected:
            raise MediaUnreadable(
                f"The video is cut off: it declares {scene.video.duration:.2f} s and holds"
                f" {float(len(faces) / reader.fps):.2f} s.",
                stage=Stage.VALIDATION,
            )
        canvas = reader.framing.canvas
        fit, params = self._parts.mask.fit, scene.job.params
        places = (None if face is None else fit(face, *canvas, params) for face in faces[:most])
        complete = len(faces) <= most
        return Avatar(tuple(places), complete=complete, engine_seconds=meter.seconds)

    def _pictures(
        self,
        avatar: Avatar,
        frames: Iterable[tuple[int, Frame]],
        spec: ClipSpec,
        meter: Meter,
    ) -> Iterator[Frame]:
        with meter.busy("listen"):
            sound = read_samples(spec.voice, self._limits)
            cues = self._parts.mouth.listen(sound, spec.fps, spec.frames)
        shots = (
            Shot(frame, avatar.frames[index], cue)
            for (index, frame), cue in zip(meter.waiting("mouth", frames), cues, strict=True)
        )
        for shot, face in meter.working("mouth", self._parts.mouth.speak(shots)):
            if face is None or shot.place is None:
                yield shot.frame
            else:
                with meter.busy("paste"):
                    picture = paste(shot.frame, face, shot.place.box, shot.place.mask)
                yield picture

    def _reader(self, scene: Scene) -> FrameReader:
        return FrameReader(
            path=scene.face.path,
            video=scene.video,
            framing=self._framing(scene),
            fps=_frame_rate(scene),
            limits=self._limits,
        )

    def _framing(self, scene: Scene) -> Framing:
        return frame_picture(scene.video, scene.job, self._limits.max_pixels)

    def _spec(self, scene: Scene, frames: int) -> ClipSpec:
        framing = self._framing(scene)
        return ClipSpec(
            width=framing.width,
            height=framing.height,
            fps=_frame_rate(scene),
            frames=frames,
            crf=scene.job.params.crf,
            color=color_tags(scene.video, framing.width, framing.height),
            voice=scene.voice.path,
            audio=scene.audio,
            sync_mode=scene.job.sync_mode,
        )

    def _unused(self, scene: Scene) -> tuple[str, ...]:
        given, default = scene.job.params, Params()
        return tuple(
            f"params.{name} has no effect with the {self._parts.name} engine."
            for name in sorted(FACE_OPTIONS - self._parts.options)
            if getattr(given, name) != getattr(default, name)
        )

    def _key(self, scene: Scene) -> str:
        job = scene.job
        return cache_key(
            video=scene.face.sha256,
            engine=self._parts.name,
            weights=self._parts.weights,
            fps=str(_frame_rate(scene)),
            framing=astuple(self._framing(scene)),
            options=job.params.model_dump(mode="json", include=set(self._parts.options)),
        )


def _frame_rate(scene: Scene) -> Fraction:
    """Return the video's own rate, or the one asked for where it is a still image."""
    return scene.video.fps or Fraction(scene.job.params.fps).limit_denominator(1001)


def _voice_frames(scene: Scene) -> int:
    return voice_frames(scene.audio.duration, _frame_rate(scene))


def _ticked(items: Iterable[Item], expected: int, tick: Tick) -> Iterator[Item]:
    for done, item in enumerate(items):
        tick(min(1.0, done / expected))
        yield item
