"""Writing: as many frames as were given, the voice in step, and a file that plays everywhere."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handler.errors import ProcessingError, Stage
from handler.job import SyncMode
from handler.ports import AudioInfo, VideoInfo
from inference.frame import Frame
from inference.media.color import color_tags
from inference.media.limits import Limits
from inference.media.probe import FfprobeGate
from inference.media.write import ClipSpec, write_clip
from tests.clips import click_seconds, film, frame, numbers_of, reader, run_ffmpeg, sound

LIMITS = Limits()
GATE = FfprobeGate(LIMITS)
PLAIN = VideoInfo(codec="h264", width=64, height=48, fps=Fraction(25), duration=2)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record two seconds with a click after one."""
    path = tmp_path_factory.mktemp("write") / "voice.wav"
    return sound(path, 2.0, 48_000, loudness=0.1, click_at=1.0)


@cache
def known(voice: Path) -> AudioInfo:
    """Probe a voice, once."""
    return GATE.voice(voice)


def spec_for(voice: Path, **changes: Any) -> ClipSpec:
    """Return how to write two seconds at 25 frames a second, but for some changes."""
    plain = ClipSpec(
        width=64,
        height=48,
        fps=Fraction(25),
        frames=50,
        crf=18,
        color=color_tags(PLAIN, 64, 48),
        voice=voice,
        audio=known(voice),
        sync_mode=SyncMode.BOUNCE,
    )
    return replace(plain, **changes)


def write(target: Path, spec: ClipSpec) -> Path:
    """Write numbered frames."""
    write_clip((frame(number) for number in range(spec.frames)), target, spec, LIMITS)
    return target


def described(path: Path) -> dict[str, Any]:
    """Return everything that ffprobe says of a file."""
    shown = ["-show_format", "-show_streams", "-show_chapters"]
    command = ["ffprobe", "-v", "error", *shown, "-of", "json", f"{path}"]
    return dict(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def heard(path: Path) -> tuple[float, float | None]:
    """Return how long a clip's sound lasts, and when the click is heard."""
    raw = run_ffmpeg("-i", f"{path}", *_MONO, "-")
    samples = np.frombuffer(raw, np.float32)
    return len(samples) / 48_000, click_seconds(samples, 48_000)


_MONO = ("-map", "0:a", "-f", "f32le", "-ac", "1", "-ar", "48000")


# -- the picture -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "60", "7/2"])
def test_every_frame_is_in_the_file_at_exactly_its_rate(
    tmp_path: Path, voice: Path, rate: str
) -> None:
    spec = spec_for(voice, fps=Fraction(rate), frames=37)
    frames = (frame(number) for number in range(37))

    written = write_clip(frames, tmp_path / "out.mp4", spec, LIMITS)

    found = GATE.output(tmp_path / "out.mp4")
    assert (written, found.frames, Fraction(found.fps)) == (37, 37, Fraction(rate))
    assert numbers_of(reader(tmp_path / "out.mp4").forward()) == list(range(37))


def test_a_frame_comes_out_as_it_went_in(tmp_path: Path, voice: Path) -> None:
    out = write(tmp_path / "out.mp4", spec_for(voice, crf=0, frames=3))

    frames = list(reader(out).forward())

    assert [shown.buffer.tobytes() for shown in frames] == [
        frame(number).buffer.tobytes() for number in range(3)
    ]


def test_a_clip_of_one_frame_is_a_clip(tmp_path: Path, voice: Path) -> None:
    out = write(tmp_path / "out.mp4", spec_for(voice, frames=1))

    assert GATE.output(out).frames == 1


def test_the_largest_picture_can_be_written_however_many_cores_there_are(
    tmp_path: Path, voice: Path
) -> None:
    # An encoder holds more pictures the more threads it runs, and may not grow without bound.
    spec = spec_for(voice, width=3840, height=2160, frames=3)

    write_clip(
        [frame(number, 3840, 2160) for number in range(3)], tmp_path / "out.mp4", spec, LIMITS
    )

    assert GATE.output(tmp_path / "out.mp4").frames == 3


def test_a_higher_crf_makes_a_smaller_file(tmp_path: Path, voice: Path) -> None:
    fine = write(tmp_path / "fine.mp4", spec_for(voice, crf=5))

    coarse = write(tmp_path / "coarse.mp4", spec_for(voice, crf=40))

    assert coarse.stat().st_size < fine.stat().st_size


# -- colours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "standard"), [(480, "smpte170m"), (719, "smpte170m"), (720, "bt709"), (2160, "bt709")]
)
def test_an_untagged_source_is_tagged_as_what_players_take_it_for(side: int, standard: str) -> None:
    tags = color_tags(replace(PLAIN, width=side, height=2 * side), 320, 640)

    # Its numbers are kept when it is shrunk, and so is what they mean.
    assert tags == tags_of(standard)


@pytest.mark.parametrize(("side", "standard"), [(480, "smpte170m"), (720, "bt709")])
def test_red_green_and_blue_are_tagged_as_what_they_are_converted_to(
    side: int, standard: str
) -> None:
    tags = color_tags(replace(PLAIN, pixel_format="rgb24"), side, 2 * side)

    assert tags == tags_of(standard)


def tags_of(standard: str) -> dict[str, str]:
    """Return the tags of a picture of one standard throughout."""
    names = ("colorspace", "color_primaries", "color_trc")
    return {"range": "tv", **dict.fromkeys(names, standard)}


def test_the_tags_of_the_source_stand_in_the_file(tmp_path: Path, voice: Path) -> None:
    tags = "range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    source = GATE.face(film(tmp_path / "source.mp4", 3, output=f"-vf setparams={tags}"))

    out = write(tmp_path / "out.mp4", spec_for(voice, frames=3, color=color_tags(source, 64, 48)))

    assert GATE.face(out).color == source.color


@pytest.mark.parametrize(
    "output",
    [
        "-vf setparams=color_trc=bt470m",
        "-vf setparams=color_trc=bt470bg:colorspace=bt470bg:color_primaries=bt470bg",
        "-vf setparams=color_trc=smpte2084:colorspace=bt2020nc:color_primaries=bt2020",
        "-vf setparams=color_trc=linear:color_primaries=smpte432",
        "-bsf:v h264_metadata=matrix_coefficients=8",
        "-bsf:v h264_metadata=matrix_coefficients=10",
        "-color_range pc -pix_fmt yuvj420p",
        "-c:v libx264rgb -pix_fmt rgb24",
    ],
)
def test_a_source_of_any_colours_can_be_written(tmp_path: Path, voice: Path, output: str) -> None:
    source = GATE.face(film(tmp_path / "source.mp4", 3, output=output))

    out = write(tmp_path / "out.mp4", spec_for(voice, frames=3, color=color_tags(source, 64, 48)))

    found = GATE.face(out)
    assert (found.pixel_format, found.color.get("color_range")) == ("yuv420p", "tv")
    assert found.color["color_space"] != "gbr"


# -- the voice -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["24000/1001", "25", "60000/1001"])
def test_the_voice_is_in_step_with_the_picture(tmp_path: Path, voice: Path, rate: str) -> None:
    fps = Fraction(rate)

    out = write(tmp_path / "out.mp4", spec_for(voice, fps=fps, frames=int(2 * fps)))

    seconds, click = heard(out)
    assert click == pytest.approx(1.0, abs=float(1 / fps))
    assert seconds == pytest.approx(2.0, abs=0.03)


def test_a_voice_that_starts_late_in_its_file_stays_late(tmp_path: Path, voice: Path) -> None:
    picture = film(tmp_path / "picture.mp4", 75)
    late = tmp_path / "late.mp4"
    both = ("-i", f"{picture}", "-itsoffset", "0.7", "-i", f"{voice}", "-c:v", "copy")
    run_ffmpeg(*both, "-map", "0:v", "-map", "1:a", f"{late}")

    out = write(tmp_path / "out.mp4", spec_for(late, frames=67))

    seconds, click = heard(out)
    assert click == pytest.approx(1.7, abs=0.04)
    assert seconds == pytest.approx(2.7, abs=0.04)


@pytest.mark.parametrize(
    ("mode", "frames", "seconds"),
    [
        (SyncMode.BOUNCE, 50, 2.0),
        # The picture is shorter: the sound ends with it.
        (SyncMode.CUT_OFF, 30, 1.2),
        (SyncMode.CUT_OFF, 50, 2.0),
        # The picture is longer: silence follows the voice, to the same end.
        (SyncMode.SILENCE, 80, 3.2),
        (SyncMode.SILENCE, 50, 2.0),
    ],
)
def test_the_sound_is_as_long_as_the_mode_of_the_job_says(
    tmp_path: Path, voice: Path, mode: SyncMode, frames: int, seconds: float
) -> None:
    out = write(tmp_path / "out.mp4", spec_for(voice, frames=frames, sync_mode=mode))

    streams = described(out)["streams"]
    assert [float(stream["duration"]) for stream in streams] == pytest.approx(
        [frames / 25, seconds], abs=0.025
    )
    assert heard(out)[1] == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize("rate_hz", [8_000, 9_600, 11_025, 37_800, 47_952, 50_000])
def test_a_voice_of_any_accepted_rate_can_be_written(tmp_path: Path, rate_hz: int) -> None:
    voice = sound(tmp_path / "voice.wav", 2.0, rate_hz, loudness=0.1, click_at=1.0)

    out = write(tmp_path / "out.mp4", spec_for(voice))

    assert heard(out)[1] == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize(
    ("rate_hz", "channels", "written"),
    [
        (44_100, 2, (44_100, 2)),
        (48_000, 6, (48_000, 2)),
        (96_000, 1, (48_000, 1)),
        (192_000, 2, (48_000, 2)),
    ],
)
def test_the_sound_is_of_a_kind_that_every_player_knows(
    tmp_path: Path, rate_hz: int, channels: int, written: tuple[int, int]
) -> None:
    voice = sound(tmp_path / "voice.wav", 1.0, rate_hz, channels, click_at=0.5)

    out = write(tmp_path / "out.mp4", spec_for(voice, frames=25))

    _, audio = described(out)["streams"]
    assert (int(audio["sample_rate"]), audio["channels"]) == written
    assert heard(out)[1] == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("channels", [2, 6, 8])
def test_many_channels_become_two_without_distortion(tmp_path: Path, channels: int) -> None:
    voice = sound(tmp_path / "voice.wav", 1.0, 48_000, channels, loudness=0.5)

    out = write(tmp_path / "out.mp4", spec_for(voice, frames=25))

    raw = run_ffmpeg("-i", f"{out}", "-map", "0:a", "-f", "f32le", "-")
    assert np.abs(np.frombuffer(raw, np.float32)).max() == pytest.approx(0.5, abs=0.05)


# -- the file --------------------------------------------------------------------------------------


def test_a_player_can_start_before_it_has_the_whole_file(tmp_path: Path, voice: Path) -> None:
    out = write(tmp_path / "out.mp4", spec_for(voice))

    content = out.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_nothing_that_the_voice_said_about_itself_reaches_the_file(tmp_path: Path) -> None:
    plain = sound(tmp_path / "plain.wav", 2.0, 48_000, loudness=0.1)
    notes = tmp_path / "notes.txt"
    chapter = "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=Secret chapter\n"
    notes.write_text(f";FFMETADATA1\ntitle=Secret title\nartist=Secret artist\n{chapter}")
    voice = tmp_path / "voice.m4a"
    run_ffmpeg("-i", f"{plain}", "-i", f"{notes}", "-map_metadata", "1", f"{voice}")
    assert "Secret chapter" in json.dumps(described(voice))

    out = write(tmp_path / "out.mp4", spec_for(voice))

    assert b"Secret" not in out.read_bytes()
    assert [stream["codec_type"] for stream in described(out)["streams"]] == ["video", "audio"]


# -- when it goes wrong ----------------------------------------------------------------------------


def test_an_encoder_that_cannot_write_is_the_workers_fault(
    tmp_path: Path, voice: Path, running: Callable[[], list[str]]
) -> None:
    with pytest.raises(ProcessingError) as failure:
        write(tmp_path / "missing" / "out.mp4", spec_for(voice))

    assert (failure.value.stage, failure.value.retryable) == (Stage.POSTPROCESSING, True)
    assert f"{tmp_path}" not in f"{failure.value}"
    assert not running()


def test_an_encoder_that_ends_too_soon_is_noticed_while_frames_still_come(
    tmp_path: Path, voice: Path
) -> None:
    given = []

    def frames() -> Iterator[Frame]:
        for number in range(5_000):
            given.append(number)
            yield frame(number % 4096, 640, 480)

    with pytest.raises(ProcessingError):
        write_clip(
            frames(),
            tmp_path / "missing" / "out.mp4",
            spec_for(voice, width=640, height=480, frames=5_000),
            LIMITS,
        )

    assert len(given) < 500


def test_an_error_among_the_frames_comes_out_as_it_is_and_ends_the_encoder(
    tmp_path: Path, voice: Path, running: Callable[[], list[str]]
) -> None:
    def frames() -> Iterator[Frame]:
        yield frame(0)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        write_clip(frames(), tmp_path / "out.mp4", spec_for(voice), LIMITS)

    assert not running()
