"""The media that are measured with, and what plain ffmpeg does to them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: A talking head of 22 s, where developers share media; else the sample that the demo films.
SHARED = Path("../shared/media")
OURS = Path("assets")

#: A clip so many times as long needs no more memory, or it is not flat.
LONGER = 10
#: The worker's own settings.
ENCODE = "-c:v libx264 -preset veryfast -crf 18 -pix_fmt yuv420p -c:a aac -b:a 192k"


@dataclass(frozen=True, slots=True)
class Footage:
    """Hold a face and a voice."""

    face: Path
    voice: Path

    @classmethod
    def given(cls, paths: Sequence[str]) -> Footage:
        """Return the face and the voice of a command line, or those that are here."""
        if paths:
            return cls(*map(Path, paths))
        if SHARED.is_dir():
            return cls(SHARED / "sun.mp4", SHARED / "sun.wav")
        return cls(OURS / "face.mp4", OURS / "voice.wav")

    def longer(self, scratch: Path) -> Footage:
        """Return the same ten times over, without encoding it again."""
        return Footage(*(_repeated(media, scratch) for media in (self.face, self.voice)))

    def cut(self, scratch: Path, seconds: float, width: int, height: int) -> Footage:
        """Return so much of it, over and over if need be, its picture stretched to a size."""
        loop = ["-stream_loop", "-1", "-i"]
        face, voice = scratch / f"face-{width}x{height}.mp4", scratch / "voice.wav"
        scaled = ["-vf", f"scale={width}:{height}", *ENCODE.split(), "-an"]
        _ffmpeg(*loop, str(self.face), "-t", str(seconds), *scaled, str(face))
        _ffmpeg(*loop, str(self.voice), "-t", str(seconds), str(voice))
        return Footage(face, voice)

    def transcode(self, scratch: Path) -> None:
        """Decode the face and encode it again with the voice, as a worker without engine would."""
        inputs = ["-i", str(self.face), "-i", str(self.voice), "-map", "0:v", "-map", "1:a"]
        _ffmpeg(*inputs, *ENCODE.split(), "-movflags", "+faststart", str(scratch / "plain.mp4"))


def _repeated(media: Path, scratch: Path) -> Path:
    target = scratch / f"longer-{media.name}"
    _ffmpeg("-stream_loop", str(LONGER - 1), "-i", str(media), "-c", "copy", str(target))
    return target


def _ffmpeg(*arguments: str) -> None:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *arguments]
    subprocess.run(command, check=True)
