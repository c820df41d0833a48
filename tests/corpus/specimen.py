"""What every file of the corpus is made from, and what is expected of a worker that gets it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests import clips

ASSETS = Path(__file__).parents[2] / "assets"

SUCCESS = "success"
UNREADABLE, UNSUPPORTED = "media_unreadable", "unsupported_media"
MISSING, EMPTY = "stream_missing", "audio_empty"
TOO_LONG, TOO_LARGE = "media_too_long", "media_too_large"
NO_FACE = "face_not_found"

#: Small enough for a whole job in half a second, large enough for a face to be found.
FILM = "-t 1 -vf scale=128:128 -an -c:v libx264 -preset ultrafast -crf 18 -movflags +faststart"
VOICE = "-t 0.5 -ac 1 -ar 16000"


@dataclass(frozen=True, slots=True)
class Material:
    """Honest media, and addresses, that attacks are made from."""

    place: Path
    film: Path
    voice: Path
    portrait: Path
    #: Where nobody may ever knock: ``http://host:port``.
    canary: str

    @classmethod
    def prepare(cls, place: Path, canary: str = "") -> Material:
        """Make them from the sample face and voice."""
        made = {
            "film.mp4": ("face.mp4", FILM),
            "voice.wav": ("voice.wav", VOICE),
            "portrait.jpg": ("portrait.jpg", "-vf scale=128:128 -update 1"),
        }
        for name, (source, words) in made.items():
            clips.run_ffmpeg("-i", f"{ASSETS / source}", *words.split(), f"{place / name}")
        return cls(place, *(place / name for name in made), canary)

    def at(self, place: Path) -> Material:
        """Return the same for somebody who works elsewhere."""
        return replace(self, place=place)

    def made(self, name: str, words: str, *paths: Path) -> bytes:
        """Return the file that ffmpeg makes of inputs; ``words`` may name them as {0}, {1}, ..."""
        target = self.place / name
        filled = words.format(*paths, film=self.film, voice=self.voice, portrait=self.portrait)
        # Without dates and random numbers, so that a file is the same every time.
        clips.run_ffmpeg(*shlex.split(filled), "-fflags", "+bitexact", f"{target}")
        return target.read_bytes()


@dataclass(frozen=True, slots=True)
class Attack:
    """How a file is made, and with which codes it may be refused as a face and as a voice.

    A code is ``this|that`` where either is true, and None for what nobody would send in that role.
    """

    make: Callable[[Material], bytes]
    face: str | None = None
    voice: str | None = None

    @property
    def expected(self) -> Mapping[str, frozenset[str]]:
        """Return what may come of it in each role."""
        codes = {"face": self.face, "voice": self.voice}
        return {role: frozenset(code.split("|")) for role, code in codes.items() if code}


def literal(content: bytes | str) -> Callable[[Material], bytes]:
    """Make a file of these very bytes."""
    return lambda _: content.encode() if isinstance(content, str) else content


def text(template: str) -> Callable[[Material], bytes]:
    """Make a file of text that names the canary and an honest film of this machine."""
    return lambda material: template.format(film=material.film, canary=material.canary).encode()


def ffmpeg(name: str, words: str) -> Callable[[Material], bytes]:
    """Make a file with ffmpeg; its words may name {film}, {voice} and {portrait}."""
    return lambda material: material.made(name, words)
