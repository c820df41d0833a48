"""Limits: what ffmpeg may open at all, told by content and never by name."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from handler.errors import MediaUnreadable
from inference.media.limits import Limits, input_options, still_demuxer
from tests.clips import film, sound, still


def options_for(path: Path) -> dict[str, list[str]]:
    """Return the whitelists for a file, taken apart."""
    options = input_options(path, Limits())
    return {name: f"{words}".split(",") for name, words in options.items()}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return film(tmp_path / "film.mp4")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return still(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    ("name", "demuxer"),
    [
        ("photo.png", "png_pipe"),
        ("photo.jpg", "jpeg_pipe"),
        ("photo.webp", "webp_pipe"),
        ("photo.bmp", "bmp_pipe"),
    ],
)
def test_a_still_image_is_told_by_its_first_bytes(tmp_path: Path, name: str, demuxer: str) -> None:
    path = still(tmp_path / name).rename(tmp_path / "face.mp4")

    assert still_demuxer(path) == demuxer


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "voice.wav", "voice.mp3", "voice.ogg"])
def test_a_clip_is_no_still_image(tmp_path: Path, name: str) -> None:
    make = film if name.startswith("film") else sound
    path = make(tmp_path / name).rename(tmp_path / "face.png")

    assert still_demuxer(path) is None


@pytest.mark.parametrize("head", [b"\x89", b"RIFF", b"RIFF\x00\x00\x00\x00WAVE", b"GIF89a", b"\n"])
def test_the_beginning_of_something_else_is_no_still_image(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(head)

    assert still_demuxer(path) is None


def test_an_empty_file_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()

    with pytest.raises(MediaUnreadable, match="empty"):
        still_demuxer(path)


def test_nothing_but_the_file_itself_is_ever_opened(clip: Path, photo: Path) -> None:
    assert options_for(clip)["protocol_whitelist"] == ["file"]
    assert options_for(photo)["protocol_whitelist"] == ["file"]


@pytest.mark.parametrize("demuxer", ["hls", "concat", "dash", "sdp", "image2", "avi", "mpegts"])
def test_no_format_that_points_to_other_files_or_is_known_for_its_bugs_is_opened(
    clip: Path, photo: Path, demuxer: str
) -> None:
    assert demuxer not in options_for(clip)["format_whitelist"]
    assert options_for(photo)["format_whitelist"] == ["jpeg_pipe"]


@pytest.mark.parametrize("decoder", ["magicyuv", "ffv1", "mjpeg", "prores", "gif", "png"])
def test_no_exotic_decoder_runs_on_a_clip(clip: Path, decoder: str) -> None:
    allowed = options_for(clip)["codec_whitelist"]

    assert decoder not in allowed
    assert {"h264", "hevc", "vp8", "vp9", "libdav1d", "aac", "mp3float", "opus"} <= set(allowed)


def test_clips_and_still_images_share_neither_format_nor_decoder(clip: Path, photo: Path) -> None:
    for whitelist in ("format_whitelist", "codec_whitelist"):
        assert not set(options_for(clip)[whitelist]) & set(options_for(photo)[whitelist])


def test_the_operators_limits_cannot_be_changed_by_a_job() -> None:
    limits = Limits(max_pixels=100)

    with pytest.raises(FrozenInstanceError):
        limits.max_pixels = 200  # type: ignore[misc]
