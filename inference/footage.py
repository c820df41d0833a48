"""What follows from a scene alone: the frames to read, their size and rate, the clip to write."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from fractions import Fraction
from math import ceil
from typing import Any

from handler.ports import Scene
from inference.matrix import Matrix
from inference.media.color import color_tags
from inference.media.encoder import Encoder
from inference.media.framing import Framing, frame_picture
from inference.media.limits import Limits
from inference.media.read import FrameReader
from inference.media.write import ClipSpec
from inference.timeline import output_frames, source_frames_needed, voice_frames


@dataclass(frozen=True, slots=True)
class Footage:
    """Read a scene as its job wants it shown."""

    scene: Scene
    limits: Limits

    @property
    def fps(self) -> Fraction:
        """Return the video's own rate, or the one asked for where it is a still image."""
        still = Fraction(self.scene.job.params.fps).limit_denominator(1001)
        return self.scene.video.fps or still

    @property
    def voice_frames(self) -> int:
        """Return how many frames the voice lasts."""
        return voice_frames(self.scene.audio.duration, self.fps)

    @property
    def source_frames(self) -> int | None:
        """Return how many frames of the source can be shown; None for every one of them."""
        return source_frames_needed(self.scene.job.sync_mode, self.voice_frames)

    @property
    def most_frames(self) -> int:
        """Return how many frames of the source are looked at, at most."""
        longest = ceil(self.limits.max_video_seconds * self.fps)
        return longest if self.source_frames is None else self.source_frames

    @property
    def expected_frames(self) -> int:
        """Return how many of these the video should have, going by what it declares."""
        declared = max(1, int(Fraction(self.scene.video.duration) * self.fps))
        return min(self.most_frames, declared)

    @property
    def framing(self) -> Framing:
        """Return the sizes that the picture goes through."""
        return frame_picture(self.scene.video, self.scene.job, self.limits.max_pixels)

    @property
    def reader(self) -> FrameReader:
        """Return what decodes the frames."""
        return FrameReader(
            path=self.scene.face.path,
            video=self.scene.video,
            framing=self.framing,
            fps=self.fps,
            limits=self.limits,
            matrix=Matrix.of(self._colors["colorspace"]),
        )

    def clip(self, source: int, encoder: Encoder) -> ClipSpec:
        """Return what to write, if the source has so many frames."""
        job = self.scene.job
        return ClipSpec(
            width=self.framing.width,
            height=self.framing.height,
            fps=self.fps,
            frames=output_frames(job.sync_mode, self.voice_frames, source),
            crf=job.params.crf,
            color=self._colors,
            voice=self.scene.voice.path,
            audio=self.scene.audio,
            sync_mode=job.sync_mode,
            encoder=encoder,
        )

    def identity(self) -> dict[str, Any]:
        """Return on what the frames depend; all of it is JSON."""
        return {
            "video": self.scene.face.sha256,
            "fps": str(self.fps),
            "framing": astuple(self.framing),
        }

    @property
    def _colors(self) -> dict[str, str]:
        return color_tags(self.scene.video, self.framing.width, self.framing.height)
