"""Whole jobs, from a face and a voice to a video that one can watch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest

from handler import Cancelled, Failure, Progress, Success, handle
from tests import clips
from tests.conftest import Studio, open_studio
from tests.screening import best_lag, changes, describe, forth_and_back, loudness, pictures

#: Seconds of the sample voice and of the sample face.
VOICE_SECONDS, FACE_SECONDS = 6.01, 4.0
SUN = Path(__file__).parents[2] / "shared" / "media"


def refilm(face: Path, target: Path, words: str) -> Path:
    """Encode the sample face again, in other words for ffmpeg."""
    quick = "-c:v libx264 -preset ultrafast -crf 12"
    clips.run_ffmpeg("-i", f"{face}", *f"{quick} {words}".split(), f"{target}")
    return target


# -- what every viewer sees ------------------------------------------------------------------------


def test_the_mouth_opens_with_the_voice_and_nothing_else_moves(
    studio: Studio, face: Path, voice: Path
) -> None:
    result, video = studio.film(face, voice)

    shown = forth_and_back(100, 150)
    opening = changes(face, video, shown)
    heard = loudness(voice, Fraction(25), 150)
    assert result.metrics.frames == len(opening) == 150
    assert np.corrcoef(opening, heard)[0, 1] > 0.5
    assert best_lag(opening, heard, reach=4) in {-1, 0, 1}
    # In the middle of the silence between the sentences, lips have come to rest.
    assert opening[80:89].max() == 0


def test_every_pixel_outside_the_mouth_is_as_in_the_source(
    studio: Studio, face: Path, voice: Path
) -> None:
    _, video = studio.film(face, voice, params={"crf": 4})

    shown = forth_and_back(100, 150)
    originals = list(pictures(face))
    worst = np.max(
        [
            np.abs(picture.astype(int) - originals[index])
            for picture, index in zip(pictures(video), shown, strict=True)
        ],
        axis=0,
    )
    rows, columns = np.nonzero(worst > 24)
    height, width = worst.shape
    assert rows.size
    assert rows.min() > 0.15 * height
    assert rows.max() - rows.min() < 0.25 * height
    assert columns.max() - columns.min() < 0.25 * width


def test_the_result_is_a_file_that_plays_everywhere(studio: Studio, face: Path, word: Path) -> None:
    result, video = studio.film(face, word)

    found = describe(video)
    assert (found["video"]["codec_name"], found["audio"]["codec_name"]) == ("h264", "aac")
    assert found["video"]["pix_fmt"] == "yuv420p"
    assert found["video"]["color_range"] == "tv"
    assert {found["video"][tag] for tag in ("color_space", "color_primaries")} == {"bt709"}
    assert video.read_bytes().index(b"moov") < video.read_bytes().index(b"mdat")
    assert result.output is not None
    assert result.output.bytes == video.stat().st_size
    assert result.output.fps == "25/1"
    assert result.worker is not None
    assert result.worker.engine == "preview"


@pytest.mark.skipif(not SUN.is_dir(), reason="the research clip is not part of the project")
def test_the_research_clip_talks(studio: Studio) -> None:
    result, video = studio.film(SUN / "sun.mp4", SUN / "sun.wav")

    opening = changes(SUN / "sun.mp4", video, forth_and_back(550, 562))
    heard = loudness(SUN / "sun.wav", Fraction(25), 562)
    found = describe(video)
    assert result.metrics.frames == int(found["video"]["nb_frames"]) == 562
    assert abs(float(found["video"]["duration"]) - 22.489) < 1 / 25
    assert np.corrcoef(opening, heard)[0, 1] > 0.5
    assert best_lag(opening, heard, reach=5) in {-1, 0, 1}


# -- sources of every kind -------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["24000/1001", "24", "30000/1001", "30", "50", "60000/1001", "60"])
def test_any_frame_rate_keeps_its_length_and_its_sync(
    studio: Studio, face: Path, voice: Path, tmp_path: Path, rate: str
) -> None:
    source = refilm(face, tmp_path / "source.mp4", f"-vf fps={rate},scale=256:256")

    result, video = studio.film(source, voice)

    fps = Fraction(rate)
    frames, count = result.metrics.frames or 0, int(describe(source)["video"]["nb_frames"])
    opening = changes(source, video, forth_and_back(count, frames))
    assert abs(frames - VOICE_SECONDS * fps) <= 1
    assert Fraction(describe(video)["video"]["r_frame_rate"]) == fps
    assert abs(best_lag(opening, loudness(voice, fps, frames), reach=8)) <= max(1, fps / 25)


def test_a_phone_clip_of_variable_rate_keeps_its_length(
    studio: Studio, face: Path, voice: Path, tmp_path: Path
) -> None:
    # Every third frame is missing from the middle second on, as when a phone runs hot.
    drop = "select='lt(n,50)+mod(n,3)'"
    source = refilm(face, tmp_path / "phone.mp4", f"-vf {drop} -fps_mode passthrough")

    result, video = studio.film(source, voice)

    assert result.output is not None
    assert abs(result.output.duration - VOICE_SECONDS) <= 1 / 25
    assert abs((result.metrics.frames or 0) - VOICE_SECONDS * Fraction(result.output.fps)) <= 1
    assert float(describe(video)["video"]["start_time"]) == 0


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_rotated_clip_comes_out_upright(
    studio: Studio, face: Path, word: Path, tmp_path: Path, orientation: int
) -> None:
    away = {3: "hflip,vflip", 6: "transpose=cclock", 8: "transpose=clock"}[orientation]
    size = "crop=384:512:64:0"
    source = refilm(face, tmp_path / "turned.mp4", f"-vf {size},{away}")
    clips.turn(source, orientation)

    result, video = studio.film(source, word)

    upright = refilm(face, tmp_path / "upright.mp4", f"-vf {size}")
    found, wanted = next(pictures(video)).astype(int), next(pictures(upright)).astype(int)
    assert found.shape == (512, 384)
    assert np.abs(found - wanted).mean() < 4
    assert result.warnings == ()


def test_a_clip_of_odd_size_loses_at_most_its_last_row_and_column(
    studio: Studio, face: Path, word: Path, tmp_path: Path
) -> None:
    odd = "-vf scale=301:303,format=yuv444p"
    source = refilm(face, tmp_path / "odd.mkv", odd)

    result, _ = studio.film(source, word)

    assert result.output is not None
    assert (result.output.width, result.output.height) == (300, 302)


@pytest.mark.parametrize("kind", ["portrait.png", "portrait.jpg", "portrait.webp"])
def test_a_still_image_talks_at_the_rate_asked_for(
    studio: Studio, face: Path, word: Path, tmp_path: Path, kind: str
) -> None:
    image = tmp_path / kind
    clips.run_ffmpeg("-i", f"{face.with_name('portrait.jpg')}", "-update", "1", f"{image}")

    result, video = studio.film(image, word, params={"fps": 30})

    found = list(pictures(video))
    assert result.metrics.frames == len(found) == 30
    assert any((picture != found[0]).any() for picture in found)


def test_a_video_can_be_the_voice(studio: Studio, face: Path, voice: Path, tmp_path: Path) -> None:
    talk = tmp_path / "talk.mp4"
    clips.run_ffmpeg("-i", f"{face}", "-i", f"{voice}", "-c:v", "copy", f"{talk}")

    result, _ = studio.film(face, talk)

    assert abs((result.metrics.frames or 0) - 150) <= 2


# -- lengths that differ ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "seconds", "frames"),
    [
        ("bounce", 6.01, 150),
        ("loop", 6.01, 150),
        ("cut_off", 6.01, 100),
        ("silence", 6.01, 150),
        ("remap", 6.01, 150),
        ("bounce", 2.0, 50),
        ("loop", 2.0, 50),
        ("cut_off", 2.0, 50),
        ("silence", 2.0, 100),
        ("remap", 2.0, 50),
    ],
)
def test_each_sync_mode_has_the_length_it_promises(
    studio: Studio,
    face: Path,
    voice: Path,
    tmp_path: Path,
    mode: str,
    seconds: float,
    frames: int,
) -> None:
    spoken = tmp_path / "spoken.wav"
    clips.run_ffmpeg("-i", f"{voice}", "-t", f"{seconds}", f"{spoken}")

    result, video = studio.film(face, spoken, sync_mode=mode)

    found = describe(video)
    assert result.metrics.frames == int(found["video"]["nb_frames"]) == frames
    longest = max(frames / 25, seconds if mode != "cut_off" else 0)
    assert abs(float(found["audio"]["duration"]) - longest) <= 2 / 25


def test_a_remapped_video_is_stretched_from_its_first_frame_to_its_last(
    studio: Studio, face: Path, voice: Path
) -> None:
    _, video = studio.film(face, voice, sync_mode="remap")

    stretched = [frame * 100 // 150 for frame in range(150)]
    opening = changes(face, video, stretched)
    assert np.median(opening) < 2000
    assert np.corrcoef(opening, loudness(voice, Fraction(25), 150))[0, 1] > 0.5


def test_a_looped_video_starts_again(studio: Studio, face: Path, voice: Path) -> None:
    _, video = studio.film(face, voice, sync_mode="loop")

    opening = changes(face, video, [frame % 100 for frame in range(150)])
    assert np.corrcoef(opening, loudness(voice, Fraction(25), 150))[0, 1] > 0.5


def test_a_silent_voice_leaves_the_video_as_it_is(
    studio: Studio, face: Path, tmp_path: Path
) -> None:
    silence = clips.sound(tmp_path / "silence.wav", seconds=3)

    result, video = studio.film(face, silence)

    assert result.metrics.frames == 75
    assert changes(face, video, range(75)).max() == 0


# -- size and shape --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"resolution": "256p"}, (256, 256)),
        ({"resolution": "720p"}, (512, 512)),
        ({"resolution": "300x200"}, (200, 200)),
        ({"aspect_ratio": "9:16", "params": {"fit": "crop"}}, (288, 512)),
        ({"aspect_ratio": "9:16", "params": {"fit": "pad"}}, (512, 910)),
        ({"aspect_ratio": "9:16", "params": {"fit": "pad"}, "resolution": "256p"}, (256, 454)),
        ({"aspect_ratio": "9:16"}, (512, 512)),
    ],
)
def test_resolution_and_aspect_ratio_shape_the_output(
    studio: Studio, face: Path, word: Path, fields: dict[str, object], size: tuple[int, int]
) -> None:
    result, _ = studio.film(face, word, **fields)

    assert result.output is not None
    assert (result.output.width, result.output.height) == size


def test_a_kept_aspect_ratio_that_was_not_asked_for_is_a_warning(
    studio: Studio, face: Path, word: Path
) -> None:
    result, _ = studio.film(face, word, aspect_ratio="9:16")

    assert len(result.warnings) == 1
    assert "9:16" in result.warnings[0]


def test_an_option_that_the_preview_cannot_heed_is_a_warning(
    studio: Studio, face: Path, word: Path
) -> None:
    result, _ = studio.film(face, word, params={"parsing_mode": "neck"})

    assert "parsing_mode" in result.warnings[0]


# -- faces that come and go ------------------------------------------------------------------------


def test_frames_without_a_face_are_shown_as_they_are(
    studio: Studio, face: Path, voice: Path, tmp_path: Path
) -> None:
    # From 1.2 s to 2.8 s something is held before the camera.
    cover = "-vf drawbox=c=gray:t=fill:enable='between(t,1.2,2.8)'"
    source = refilm(face, tmp_path / "covered.mp4", cover)

    result, video = studio.film(source, voice, sync_mode="cut_off")

    opening = changes(source, video, range(100))
    assert opening[35:65].max() == 0
    assert opening[:25].max() > 0
    assert opening[80:].max() > 0
    assert "show no face" in result.warnings[0]


def test_a_known_face_is_not_tracked_again_and_looks_the_same(
    studio: Studio, face: Path, word: Path
) -> None:
    first, video = studio.film(face, word)
    before = video.read_bytes()

    second, video = studio.film(face, word)

    assert (first.metrics.avatar_cache, second.metrics.avatar_cache) == ("miss", "hit")
    assert "track" not in second.metrics.engine_times
    assert video.read_bytes() == before


def test_a_face_known_for_a_short_voice_is_tracked_further_for_a_long_one(
    studio: Studio, face: Path, voice: Path, word: Path
) -> None:
    studio.film(face, word)

    longer, video = studio.film(face, voice)
    again, _ = studio.film(face, word)

    assert longer.metrics.avatar_cache == "miss"
    assert again.metrics.avatar_cache == "hit"
    assert changes(face, video, forth_and_back(100, 150))[60:].max() > 0


def test_the_answer_does_not_depend_on_which_jobs_came_before(
    studio: Studio, face: Path, voice: Path, word: Path, tmp_path: Path
) -> None:
    cover = "-vf drawbox=c=gray:t=fill:enable='lt(t,2)'"
    source = refilm(face, tmp_path / "late.mp4", cover)

    fresh = studio.fail(source, word)
    studio.film(source, voice)
    later = studio.run(source, word)

    assert isinstance(later, Failure)
    assert fresh.error_code == later.error_code == "face_not_found"


def test_a_video_as_long_as_its_voice_is_known_as_a_whole(
    studio: Studio, face: Path, voice: Path, tmp_path: Path
) -> None:
    spoken = tmp_path / "spoken.wav"
    clips.run_ffmpeg("-i", f"{voice}", "-t", "4", f"{spoken}")
    studio.film(face, spoken)

    longer, _ = studio.film(face, voice, sync_mode="silence")

    assert longer.metrics.avatar_cache == "hit"


def test_an_untagged_video_keeps_its_meaning_when_it_is_shrunk(
    studio: Studio, face: Path, word: Path, tmp_path: Path
) -> None:
    # Players take an untagged picture of that size for BT.709, and a smaller one for BT.601.
    untagged = "-vf scale=720:720 -bsf:v h264_metadata=matrix_coefficients=2:colour_primaries=2"
    source = refilm(face, tmp_path / "hd.mp4", untagged)

    _, video = studio.film(source, word, resolution="256p")

    assert describe(source)["video"].get("color_space") is None
    assert describe(video)["video"]["color_space"] == "bt709"


def test_a_photograph_larger_than_any_video_is_shrunk_to_one(
    studio: Studio, face: Path, word: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    portrait = f"{face.with_name('portrait.jpg')}"
    clips.run_ffmpeg("-i", portrait, "-vf", "scale=3500:3500", "-update", "1", f"{photo}")

    result, _ = studio.film(photo, word)

    assert result.output is not None
    assert result.output.width == result.output.height == 2880


def test_a_face_that_cannot_be_remembered_still_talks(
    tmp_path: Path, face: Path, word: Path
) -> None:
    (tmp_path / "avatars").write_text("a file where the cache would be")

    result, _ = open_studio(tmp_path).film(face, word)

    assert "could not be remembered" in result.warnings[0]


# -- what cannot be filmed -------------------------------------------------------------------------


def nonsense(place: Path) -> Path:
    path = place / "nonsense.bin"
    path.write_bytes(b"<html>This is not a video.</html>" * 50)
    return path


def scenery(place: Path) -> Path:
    clips.run_ffmpeg("-f", "lavfi", "-i", "smptebars=duration=2:size=320x240", f"{place}/bars.mp4")
    return place / "bars.mp4"


def nothing(place: Path) -> Path:
    (place / "nothing.bin").touch()
    return place / "nothing.bin"


def no_samples(place: Path) -> Path:
    return clips.sound(place / "empty.wav", seconds=0)


def sample_face(place: Path) -> Path:
    return Path(shutil.copy(Path(__file__).parent.parent / "assets" / "face.mp4", place))


def sample_voice(place: Path) -> Path:
    return Path(shutil.copy(Path(__file__).parent.parent / "assets" / "voice.wav", place))


@pytest.mark.parametrize(
    ("video", "audio", "stage", "code"),
    [
        (nonsense, sample_voice, "validation", "media_unreadable"),
        (nothing, sample_voice, "validation", "media_unreadable"),
        (sample_voice, sample_voice, "validation", "stream_missing"),
        (scenery, sample_voice, "preprocessing", "face_not_found"),
        (sample_face, nonsense, "validation", "media_unreadable"),
        (sample_face, sample_face, "validation", "stream_missing"),
        (sample_face, no_samples, "validation", "audio_empty"),
    ],
)
def test_media_that_cannot_be_used_fails_as_the_callers_to_mend(
    studio: Studio,
    tmp_path: Path,
    word: Path,
    face: Path,
    video: Callable[[Path], Path],
    audio: Callable[[Path], Path],
    stage: str,
    code: str,
) -> None:
    failure = studio.fail(video(tmp_path), audio(tmp_path))

    assert failure.error_type == "media_error"
    assert (failure.stage, failure.error_code) == (stage, code)
    assert not failure.retryable
    assert failure.stack_trace is None
    assert str(tmp_path) not in str(failure.to_json())
    studio.film(face, word)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.6, 0.93])
def test_a_job_can_be_taken_back_at_any_time_and_leaves_nothing(
    studio: Studio, face: Path, word: Path, fraction: float
) -> None:
    def take_back(progress: Progress) -> None:
        if progress.fraction >= fraction:
            raise Cancelled("taken back")

    urls = {"video_url": face.as_uri(), "audio_url": word.as_uri()}

    result = handle(urls, studio.runtime, take_back)

    assert isinstance(result, Failure)
    assert result.error_type == "cancelled"
    children = [child.name() for child in psutil.Process().children(recursive=True)]
    assert not {"ffmpeg", "ffprobe"} & set(children)
    assert not list(studio.out.glob("*"))
    studio.film(face, word)


def test_a_job_past_its_deadline_fails_and_may_be_tried_again(
    tmp_path: Path, face: Path, word: Path
) -> None:
    studio = open_studio(tmp_path, JOB_TIMEOUT_SEC="0.001")

    failure = studio.fail(face, word)

    assert failure.error_code == "deadline_exceeded"
    assert failure.retryable


def test_the_times_of_the_stages_add_up_to_the_whole(
    studio: Studio, face: Path, word: Path
) -> None:
    result, _ = studio.film(face, word)

    metrics = result.metrics
    assert sum(metrics.stage_times.values()) == pytest.approx(metrics.total_time, rel=0.02)
    assert metrics.script_wall_time_sec == metrics.stage_times["inference"]
    assert 0 < metrics.generation_time_sec < metrics.script_wall_time_sec


def test_a_success_is_what_it_says(studio: Studio, face: Path, word: Path) -> None:
    result, video = studio.film(face, word, musetalk_job_id="job-1", metadata={"order": 7})

    assert isinstance(result, Success)
    assert result.output_url == video.as_uri()
    assert result.metadata == {"order": 7}
