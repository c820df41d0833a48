"""Media that is whole and honest, and of a kind that nobody needs to decode."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tests.corpus.specimen import UNREADABLE, UNSUPPORTED, Attack, ffmpeg

_REFUSED = f"{UNSUPPORTED}|{UNREADABLE}"


def _film(name: str, words: str) -> Attack:
    return Attack(ffmpeg(name, f"-i {{film}} -frames:v 4 {words}"), _REFUSED)


def _voice(name: str, words: str) -> Attack:
    return Attack(ffmpeg(name, f"-i {{voice}} {words}"), voice=_REFUSED)


CODECS: Mapping[str, Attack] = MappingProxyType(
    {
        "MagicYUV": _film("a.mkv", "-c:v magicyuv -pix_fmt yuv420p"),
        "MagicYUV in MOV": _film("a.mov", "-c:v magicyuv -pix_fmt yuv420p"),
        "FFV1": _film("a.mkv", "-c:v ffv1"),
        "motion JPEG": _film("a.mov", "-c:v mjpeg -pix_fmt yuvj420p"),
        "motion PNG": _film("a.mov", "-c:v png"),
        "ProRes": _film("a.mov", "-c:v prores_ks"),
        "raw video": _film("a.mov", "-c:v rawvideo"),
        "Theora": _film("a.ogg", "-c:v libtheora"),
        "AVI": _film("a.avi", "-c copy"),
        "MPEG-TS": _film("a.ts", "-c copy -f mpegts"),
        "GIF": _film("a.gif", ""),
        "AC-3": _voice("a.mp4", "-c:a ac3"),
        "MP2": _voice("a.mp2", ""),
        "ADPCM": _voice("a.wav", "-c:a adpcm_ima_wav"),
        "mu-law": _voice("a.wav", "-c:a pcm_mulaw"),
        "WavPack": _voice("a.mka", "-c:a wavpack"),
        "AIFF": _voice("a.aiff", ""),
    }
)
