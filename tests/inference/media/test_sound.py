"""Hearing: every moment of a voice where it belongs, whatever it is stored in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from handler.errors import MediaTooLong, MediaUnreadable
from inference.media.limits import Limits
from inference.media.sound import RATE_HZ, measure_seconds, read_samples
from tests.clips import VOICES, VP8, click_seconds, film, run_ffmpeg, sound

LIMITS = Limits()


def heard(path: Path) -> NDArray[np.float32]:
    return np.concatenate(list(read_samples(path, LIMITS)))


@pytest.mark.parametrize(("name", "rate_hz", "output", "codec"), VOICES)
def test_a_click_is_heard_when_it_was_made(
    tmp_path: Path, name: str, rate_hz: int, output: str, codec: str
) -> None:
    path = sound(tmp_path / name, 2.5, rate_hz, click_at=1.25, output=output)

    samples = heard(path)

    assert click_seconds(samples, RATE_HZ) == pytest.approx(1.25, abs=0.01)
    assert len(samples) / RATE_HZ == pytest.approx(2.5, abs=0.03)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
def test_a_voice_on_many_channels_is_no_louder_than_on_one(tmp_path: Path, channels: int) -> None:
    path = sound(tmp_path / "voice.wav", 0.5, 48_000, channels, loudness=0.25)

    samples = heard(path)

    assert np.abs(samples).max() == pytest.approx(0.25, rel=0.02)


def test_the_sound_comes_in_chunks_of_a_second_and_a_rest(tmp_path: Path) -> None:
    path = sound(tmp_path / "voice.wav", 2.5, loudness=0.1)

    chunks = list(read_samples(path, LIMITS))

    assert [len(chunk) for chunk in chunks] == [16_000, 16_000, 8_000]
    # Each is the consumer's own: a later one does not overwrite it.
    assert not np.shares_memory(chunks[0], chunks[1])


def test_samples_are_what_was_recorded(tmp_path: Path) -> None:
    path = sound(tmp_path / "voice.wav", 0.5, loudness=0.5, output="-c:a pcm_f32le")

    samples = heard(path)

    due = 0.5 * np.sin(2 * np.pi * 220 * np.arange(8_000) / RATE_HZ)
    assert np.abs(samples - due).max() < 1e-6


@pytest.mark.parametrize("sample", [float("nan"), float("inf"), 1e30])
def test_numbers_that_are_no_sound_are_refused_where_they_are_first_heard(
    tmp_path: Path, sample: float
) -> None:
    raw, path = tmp_path / "voice.raw", tmp_path / "voice.wav"
    samples = np.full(RATE_HZ, 0.1, np.float32)
    samples[8_000] = sample
    raw.write_bytes(samples.tobytes())
    run_ffmpeg("-f", "f32le", "-ar", f"{RATE_HZ}", "-i", f"{raw}", "-c:a", "pcm_f32le", f"{path}")

    with pytest.raises(MediaUnreadable, match="no sound"):
        measure_seconds(path, LIMITS)


@pytest.mark.parametrize(
    ("name", "video", "audio"), [("film.mp4", "", "aac"), ("film.webm", VP8, "libopus")]
)
def test_a_voice_that_starts_late_in_its_film_is_heard_late(
    tmp_path: Path, name: str, video: str, audio: str
) -> None:
    picture = film(tmp_path / f"picture{Path(name).suffix}", 75, output=video)
    voice = sound(tmp_path / "voice.wav", 2.0, 48_000, click_at=0.5)
    path = tmp_path / name
    both = ("-i", f"{picture}", "-itsoffset", "0.7", "-i", f"{voice}", "-c:v", "copy")
    run_ffmpeg(*both, "-map", "0:v", "-map", "1:a", "-c:a", audio, f"{path}")

    samples = heard(path)

    assert click_seconds(samples, RATE_HZ) == pytest.approx(1.2, abs=0.02)


def test_a_gap_in_a_voice_is_silence_and_what_follows_keeps_its_time(tmp_path: Path) -> None:
    whole = sound(tmp_path / "whole.wav", 3.0, 48_000, loudness=0.2, click_at=2.5)
    path = tmp_path / "gap.mkv"
    gap = "aselect='lt(t,1)+gte(t,2)'"
    run_ffmpeg("-i", f"{whole}", "-af", gap, "-c:a", "pcm_s16le", f"{path}")

    samples = heard(path)

    assert click_seconds(samples, RATE_HZ) == pytest.approx(2.5, abs=0.01)
    assert np.abs(samples[int(1.2 * RATE_HZ) : int(1.8 * RATE_HZ)]).max() < 0.001


def test_of_several_sounds_the_first_is_heard(tmp_path: Path) -> None:
    first = sound(tmp_path / "first.wav", 1.0, click_at=0.3)
    second = sound(tmp_path / "second.wav", 1.0, click_at=0.6)
    path = tmp_path / "both.mka"
    run_ffmpeg("-i", f"{first}", "-i", f"{second}", "-map", "0", "-map", "1", f"{path}")

    samples = heard(path)

    assert click_seconds(samples, RATE_HZ) == pytest.approx(0.3, abs=0.03)


def test_the_measured_length_is_the_number_of_samples(tmp_path: Path) -> None:
    path = sound(tmp_path / "voice.wav", 1.2345, 48_000)

    seconds = measure_seconds(path, LIMITS)

    assert seconds == pytest.approx(1.2345, abs=0.0005)


def test_a_voice_that_goes_on_beyond_the_limit_is_given_up_there(
    tmp_path: Path, running: Callable[[], list[str]]
) -> None:
    path = sound(tmp_path / "voice.wav", 10.0)
    chunks = read_samples(path, Limits(max_audio_seconds=2))

    assert len(next(chunks)) + len(next(chunks)) == 2 * RATE_HZ
    with pytest.raises(MediaTooLong, match="2 s"):
        next(chunks)

    assert not running()


def test_a_voice_of_exactly_the_limit_is_heard_to_the_end(tmp_path: Path) -> None:
    path = sound(tmp_path / "voice.wav", 2.0)

    seconds = measure_seconds(path, Limits(max_audio_seconds=2))

    assert seconds == 2


def test_a_voice_that_cannot_be_decoded_is_unreadable(
    tmp_path: Path, running: Callable[[], list[str]]
) -> None:
    path = tmp_path / "voice.bin"
    path.write_bytes(Random(1).randbytes(9999))

    with pytest.raises(MediaUnreadable) as failure:
        measure_seconds(path, LIMITS)

    assert f"{tmp_path}" not in f"{failure.value} {failure.value.details}"
    assert not running()


def test_whoever_stops_listening_leaves_no_decoder_behind(
    tmp_path: Path, running: Callable[[], list[str]]
) -> None:
    path = sound(tmp_path / "voice.wav", 60.0)
    chunks = read_samples(path, LIMITS)
    next(chunks)
    assert running() == ["ffmpeg"]

    chunks.close()

    assert not running()
