"""Whole jobs with MuseTalk, whose networks are small here: what holds whatever they have learnt.

Where an encoder loses nothing (crf 0), a frame can be compared with its source pixel by pixel.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.config import ConfigError
from tests import clips
from tests.conftest import Studio, open_musetalk
from tests.screening import describe, forth_and_back, pictures
from tests.tiny_dwpose import face_points, write_tiny_dwpose
from tests.tiny_musetalk import SAMPLE_FACE

SIDE = 256
SQUARE = (SIDE, SIDE)
#: As long as one frame at 25 frames a second.
BLINK_SECONDS = 0.04
#: One of the points of a face: the middle of its box, which ends so many pixels below the chin.
BRIDGE, MARGIN_PIXELS = 29, 10

UNET, DESCRIPTION = "musetalkV15/unet.pth", "musetalkV15/musetalk.json"
VAE, WHISPER = "sd-vae/diffusion_pytorch_model.bin", "whisper/pytorch_model.bin"
TRACKER = "dwpose/dw-ll_ucoco_384.onnx"

Face = tuple[float, float, float]
Size = tuple[int, int]


@pytest.fixture(scope="module")
def studio(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Open a worker for all stories: what one of them does must not matter to the others."""
    return open_musetalk(tmp_path_factory.mktemp("studio"), weights)


@pytest.fixture(scope="module")
def clip(face: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clip of two frames."""
    return refilm(face, tmp_path_factory.mktemp("clip") / "clip.mp4", frames=2)


@pytest.fixture(scope="module")
def sight(face: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shortest clip that is accepted: two frames."""
    return refilm(face, tmp_path_factory.mktemp("sight") / "sight.mp4", frames=2)


@pytest.fixture(scope="module")
def blink(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sound as long as a single frame."""
    return spoken(tmp_path_factory.mktemp("blink"), BLINK_SECONDS)


def refilm(
    face: Path,
    target: Path,
    *,
    frames: int,
    size: Size = SQUARE,
    rate: str = "25",
    then: str = "null",
    words: str = "",
) -> Path:
    """Film the first frames of the sample face at another rate; ``then`` are more filters."""
    width, height = size
    filters = f"setpts=N/({rate})/TB,fps={rate},scale={width}:{height},{then}"
    output = f"-vf {filters} -frames:v {frames} {clips.X264} {words}"
    clips.run_ffmpeg("-i", f"{face}", *output.split(), f"{target}")
    return target


def spoken(place: Path, seconds: float) -> Path:
    """Record a voice of some length."""
    return clips.sound(place / "voice.wav", seconds, loudness=0.3)


def painted(
    source: Path,
    video: Path,
    shown: Sequence[int],
    face: Face = SAMPLE_FACE,
) -> list[int]:
    """Return how many pixels of each frame's lower face differ from the source; no others may."""
    originals, counts = list(pictures(source)), []
    where = lower_face(face, originals[0].shape[::-1])
    for picture, index in zip(pictures(video), shown, strict=True):
        differs = picture != originals[index]
        counts.append(int(np.count_nonzero(differs[where])))
        differs[where] = False
        assert not differs.any()
    return counts


def lower_face(face: Face, frame: Size) -> tuple[slice, slice]:
    """Return the rows and columns in which MuseTalk may paint: below the middle of its box."""
    points = face_points(face, frame)
    (left, _), (right, chin) = points.min(axis=0), points.max(axis=0)
    top, bottom = max(0, 2 * points[BRIDGE, 1] - chin), min(frame[1], chin + MARGIN_PIXELS)
    # The tracker looks at a small picture, and what is painted fades out on its way up.
    blur = 2 + max(frame) / 128
    fade = 0.04 * max(right - left, bottom - top)
    rows = slice(max(0, floor((top + bottom) / 2 - blur - fade)), ceil(bottom + blur))
    return rows, slice(max(0, floor(left - blur)), max(0, ceil(right + blur)))


def borrowed(weights: Path, place: Path) -> Path:
    """Return a directory of the same weights, in which files can be replaced."""
    for path in weights.rglob("*.*"):
        link = place / path.relative_to(weights)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return place


def looking_at(weights: Path, place: Path, face: Face, frame: Size = SQUARE) -> Path:
    """Return weights that see a face elsewhere."""
    tracker = borrowed(weights, place) / TRACKER
    tracker.unlink()
    write_tiny_dwpose(tracker, face, frame)
    return place


# -- lengths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["24000/1001", "24", "30000/1001", "50", "60000/1001", "60"])
def test_any_frame_rate_keeps_every_frame_down_to_the_last(
    studio: Studio, face: Path, tmp_path: Path, rate: str
) -> None:
    source, fps = refilm(face, tmp_path / "source.mp4", frames=2, rate=rate), Fraction(rate)
    # Three frames, and not three at a rate rounded down.
    seconds = float(3.01 / fps)

    result, video = studio.film(source, spoken(tmp_path, seconds), params={"crf": 0})

    found = describe(video)
    assert result.metrics.frames == int(found["video"]["nb_frames"]) == 3
    assert Fraction(found["video"]["r_frame_rate"]) == fps
    assert abs(float(found["video"]["duration"]) - seconds) < 1 / fps
    assert abs(float(found["audio"]["duration"]) - seconds) < 1 / fps
    assert min(painted(source, video, forth_and_back(2, 3))) > 0


def test_a_phone_clip_of_variable_rate_shows_each_frame_when_it_was_taken(
    studio: Studio, tmp_path: Path
) -> None:
    taken_ms, seconds = (0, 40, 120, 160), 0.16
    source = clips.film(tmp_path / "phone.mp4", range(4), size=SQUARE, times_ms=taken_ms)

    result, video = studio.film(source, spoken(tmp_path, seconds))

    assert result.output is not None
    fps = Fraction(result.output.fps)
    shown_ms = np.arange(floor(fps * seconds)) * 1000 / float(fps)
    due = np.searchsorted(taken_ms, shown_ms, "right") - 1
    assert clips.numbers_of(clips.reader(video).forward()) == due.tolist()
    assert abs(result.output.duration - seconds) < 1 / fps


def test_two_frames_talk_for_as_long_as_the_voice(
    studio: Studio, sight: Path, tmp_path: Path
) -> None:
    result, video = studio.film(sight, spoken(tmp_path, 0.12), params={"crf": 0})

    assert result.metrics.frames == 3
    assert min(painted(sight, video, [0, 1, 1])) > 0


def test_a_portrait_talks_at_the_rate_asked_for(studio: Studio, face: Path, tmp_path: Path) -> None:
    portrait = tmp_path / "portrait.png"
    original = f"{face.with_name('portrait.jpg')}"
    clips.run_ffmpeg("-i", original, "-vf", f"scale={SIDE}:{SIDE}", "-update", "1", f"{portrait}")

    result, video = studio.film(portrait, spoken(tmp_path, 0.1), params={"crf": 0, "fps": 30})

    still = next(pictures(portrait)).astype(int)
    where = lower_face(SAMPLE_FACE, SQUARE)
    assert result.metrics.frames == 3
    for picture in pictures(video):
        away = np.abs(picture - still)
        assert away[where].max() > 32
        away[where] = 0
        assert away.max() <= 2


@pytest.mark.parametrize("seconds", [0.04, 0.05])
def test_a_voice_of_hardly_a_frame_makes_one_frame(
    studio: Studio, sight: Path, tmp_path: Path, seconds: float
) -> None:
    result, video = studio.film(sight, spoken(tmp_path, seconds), params={"crf": 0})

    assert result.metrics.frames == 1
    assert painted(sight, video, [0])[0] > 0


def test_where_the_voice_has_ended_the_mouth_is_left_as_it_is(
    studio: Studio, clip: Path, blink: Path
) -> None:
    _, video = studio.film(clip, blink, sync_mode="silence", params={"crf": 0})

    speaking, silent = painted(clip, video, range(2))
    assert speaking > 0
    assert silent == 0


def test_a_voice_longer_than_the_video_can_be_cut_off(
    studio: Studio, clip: Path, tmp_path: Path
) -> None:
    wishes = {"sync_mode": "cut_off", "params": {"crf": 0}}

    _, video = studio.film(clip, spoken(tmp_path, 1), **wishes)

    assert min(painted(clip, video, range(2))) > 0
    assert float(describe(video)["audio"]["duration"]) <= 0.08 + 0.03


# -- faces that come and go ------------------------------------------------------------------------


def test_a_face_that_leaves_and_returns_neither_cuts_the_video_nor_shifts_it(
    studio: Studio, face: Path, tmp_path: Path
) -> None:
    # It is dark for two seconds.
    dark = "drawbox=96:96:64:64:black:fill:enable='between(n,1,4)'"
    source = refilm(face, tmp_path / "source.mp4", frames=6, rate="2", then=dark)

    result, video = studio.film(source, spoken(tmp_path, 3), params={"crf": 0})

    before, *during, after = painted(source, video, range(6))
    assert result.metrics.frames == 6
    assert min(before, after) > 0
    assert during == [0, 0, 0, 0]
    assert result.warnings == ("4 of 6 frames show no face and were kept.",)


def test_a_face_missed_for_a_moment_is_painted_all_the_same(
    studio: Studio, face: Path, tmp_path: Path
) -> None:
    dark = "drawbox=96:96:64:64:black:fill:enable='between(n,1,2)'"
    source = refilm(face, tmp_path / "source.mp4", frames=4, rate="5", then=dark)

    result, video = studio.film(source, spoken(tmp_path, 0.8), params={"crf": 0})

    assert min(painted(source, video, range(4))) > 0
    assert result.warnings == ()


# -- faces anywhere, pictures of any size ----------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        pytest.param((0.02, 0.5, 0.3), id="left"),
        pytest.param((0.98, 0.5, 0.3), id="right"),
        pytest.param((0.5, 0.02, 0.3), id="top"),
        pytest.param((0.5, 0.85, 0.3), id="bottom"),
        pytest.param((0.03, 0.03, 0.3), id="top left"),
        pytest.param((0.97, 0.88, 0.3), id="bottom right"),
        pytest.param((0.5, 0.4, 1.1), id="everywhere"),
    ],
)
def test_a_face_that_reaches_beyond_the_picture_is_painted_and_nothing_else(
    weights: Path, sight: Path, blink: Path, tmp_path: Path, place: Face
) -> None:
    studio = open_musetalk(tmp_path, looking_at(weights, tmp_path / "weights", place))

    _, video = studio.film(sight, blink, params={"crf": 0})

    assert painted(sight, video, [0], place)[0] > 0


def test_a_4k_video_is_painted_at_its_own_size(
    weights: Path, face: Path, blink: Path, tmp_path: Path
) -> None:
    size, place = (3840, 2160), (0.434, 0.22, 0.2)
    source = refilm(face, tmp_path / "4k.mp4", frames=2, size=size)
    studio = open_musetalk(tmp_path, looking_at(weights, tmp_path / "weights", place, size))

    result, video = studio.film(source, blink, params={"crf": 0})

    assert result.output is not None
    assert (result.output.width, result.output.height) == size
    assert painted(source, video, [0], place)[0] > 0


# -- colours ---------------------------------------------------------------------------------------


def rgb(video: Path, matrix: str) -> NDArray[np.int16]:
    """Return a video's first picture in colours, by a matrix: [height, width, 3]."""
    words = f"-vf scale=in_color_matrix={matrix}:out_range=pc -frames:v 1 -f rawvideo"
    raw = clips.run_ffmpeg("-i", f"{video}", *words.split(), "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(SIDE, SIDE, 3).astype(np.int16)


def test_a_face_has_the_same_colours_whatever_their_standard(
    studio: Studio, face: Path, blink: Path, tmp_path: Path
) -> None:
    shown = {}
    for matrix, tag in {"bt601": "smpte170m", "bt709": "bt709"}.items():
        source = tmp_path / f"{matrix}.mp4"
        tags = f"range=tv:colorspace={tag}:color_primaries={tag}:color_trc={tag}"
        convert = f"format=gbrp,scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p"
        refilm(face, source, frames=2, then=f"{convert},setparams={tags}", words="-crf 4")

        _, video = studio.film(source, blink, params={"crf": 0})

        found = describe(video)["video"]
        assert {found[f"color_{what}"] for what in ("space", "primaries", "transfer")} == {tag}
        assert found["color_range"] == "tv"
        assert painted(source, video, [0])[0] > 0
        shown[matrix] = rgb(video, matrix)

    rows_and_columns = lower_face(SAMPLE_FACE, SQUARE)
    away = shown["bt601"][rows_and_columns] - shown["bt709"][rows_and_columns]
    assert np.abs(away.mean(axis=(0, 1))).max() < 2


# -- options and results ---------------------------------------------------------------------------


def test_each_option_of_the_face_changes_the_picture_and_what_is_remembered(
    studio: Studio, face: Path, blink: Path, tmp_path: Path
) -> None:
    unknown = refilm(face, tmp_path / "unknown.mp4", frames=3, rate="24")
    wishes: Sequence[dict[str, Any]] = (
        {},
        {"parsing_mode": "raw"},
        {"parsing_mode": "neck"},
        {"left_cheek_width": 20, "right_cheek_width": 60},
        {"extra_margin": 40},
        {"bbox_shift": 6},
    )

    takes = [studio.film(unknown, blink, params=wish) for wish in wishes]

    assert {result.metrics.avatar_cache for result, _ in takes} == {"miss"}
    assert {result.warnings for result, _ in takes} == {()}
    assert len({video.read_bytes() for _, video in takes}) == len(wishes)


def test_a_result_tells_what_made_it(studio: Studio, clip: Path, tmp_path: Path) -> None:
    wishes = {"params": {"batch_size": 1, "parsing_mode": "jaw", "bbox_shift": 1}}

    result, _ = studio.film(clip, spoken(tmp_path, 0.08), **wishes)

    told = json.loads(json.dumps(result.to_json()))
    metrics, worker = told["metrics"], told["worker"]
    assert worker["engine"] == "musetalk"
    assert worker["weights"].startswith("musetalk-1.5 ")
    assert (metrics["frames"], metrics["batch_size"], metrics["avatar_cache"]) == (2, 1, "miss")
    assert metrics["engine_times"].keys() == {"track", "make", "listen", "mouth", "paste", "encode"}
    assert min(metrics["engine_times"].values()) >= 0
    assert metrics["GENERATION_TIME_SEC"] == metrics["engine_times"]["mouth"] > 0
    assert metrics["PEAK_VRAM_MIB"] is None
    assert told["warnings"] == []


# -- weights that cannot be used -------------------------------------------------------------------


def cut(weights: Path, path: str) -> None:
    """Leave half of a file, as a download that broke off does."""
    content = (weights / path).read_bytes()
    (weights / path).unlink()
    (weights / path).write_bytes(content[: len(content) // 2])


def truncated(weights: Path) -> None:
    """Break off the UNet."""
    cut(weights, UNET)


def truncated_tracker(weights: Path) -> None:
    """Break off the tracker."""
    cut(weights, TRACKER)


def swapped(weights: Path) -> None:
    """Take one file for the other."""
    one, other = (
        weights / VAE,
        weights / "whisper/pytorch_model.bin",
    )
    one.rename(weights / "one")
    other.rename(one)
    (weights / "one").rename(other)


def of_another_shape(weights: Path) -> None:
    """Have the UNet's description be that of another one."""
    path = weights / DESCRIPTION
    description = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    path.write_text(json.dumps(description | {"cross_attention_dim": 768}), encoding="utf-8")


def undescribed(weights: Path) -> None:
    """Have something else where the UNet's description should be."""
    path = weights / DESCRIPTION
    path.unlink()
    path.write_text("<html>Not found</html>", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (truncated, UNET),
        (truncated_tracker, TRACKER),
        (swapped, VAE),
        (of_another_shape, UNET),
        (undescribed, DESCRIPTION),
    ],
)
def test_bad_weights_stop_the_start_with_the_file_and_the_remedy(
    weights: Path, tmp_path: Path, spoil: Callable[[Path], None], name: str
) -> None:
    spoil(borrowed(weights, tmp_path / "weights"))

    with pytest.raises(ConfigError) as stopped:
        open_musetalk(tmp_path, tmp_path / "weights")

    assert name in str(stopped.value)
    assert "`musetalk-worker weights fetch`" in str(stopped.value)
