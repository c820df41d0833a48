"""Reading pictures: every frame once, in its place, upright, forwards and backwards."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from random import Random

import pytest

from handler.errors import MediaUnreadable
from handler.job import SyncMode
from inference.frame import Frame
from inference.media.read import CHUNK_BYTES, CHUNK_FRAMES, FrameReader
from inference.timeline import passes
from tests.clips import (
    FILMS,
    HEVC,
    RATES,
    VP8,
    VP9,
    film,
    forget_frame_rate,
    frame,
    number_of,
    numbers_of,
    reader,
    run_ffmpeg,
    sound,
    still,
)

#: A phone's timestamps: about 30 frames a second, never evenly.
PHONE_MS = [33 * frame + Random(frame).randrange(-7, 8) for frame in range(1, 61)]
#: A screen recorder's: bursts, and pictures that stand still for a while.
SCREEN_MS = list(accumulate([17, 33, 120, 33, 50, 67, 20, 34] * 8, initial=0))[:60]


# -- forwards --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rate"), RATES)
def test_each_frame_is_read_once_at_every_usual_rate(tmp_path: Path, name: str, rate: str) -> None:
    path = film(tmp_path / name, 48, rate, output="-bf 2")

    frames = list(reader(path).forward())

    assert numbers_of(frames) == list(range(48))


@pytest.mark.parametrize(("name", "output", "codec"), FILMS)
def test_each_frame_is_read_once_from_every_codec_that_callers_send(
    tmp_path: Path, name: str, output: str, codec: str
) -> None:
    path = film(tmp_path / name, 30, output=output)

    frames = list(reader(path).forward())

    assert numbers_of(frames) == list(range(30))


@pytest.mark.parametrize("wishes", [{}, {"resolution": "32x32"}], ids=["kept", "shrunk"])
@pytest.mark.parametrize("matrix", [8, 10], ids=["YCgCo", "constant luminance"])
def test_colours_that_nobody_could_convert_are_read_as_the_numbers_they_are(
    tmp_path: Path, matrix: int, wishes: dict[str, str]
) -> None:
    tag = f"-bsf:v h264_metadata=matrix_coefficients={matrix}"
    path = film(tmp_path / "film.mp4", 3, output=tag)

    frames = list(reader(path, **wishes).forward())

    assert numbers_of(frames) == [0, 1, 2]


@pytest.mark.parametrize("times_ms", [PHONE_MS, SCREEN_MS], ids=["phone", "screen"])
@pytest.mark.parametrize("rate", [25, 30, Fraction(60000, 1001)], ids=str)
def test_a_film_of_varying_rate_shows_at_each_moment_what_a_player_shows(
    tmp_path: Path, times_ms: list[int], rate: Fraction
) -> None:
    path = film(tmp_path / "film.mp4", 60, times_ms=times_ms, output="-bf 2")
    since_first = [time - times_ms[0] for time in times_ms]
    source = reader(path, Fraction(rate))

    shown = numbers_of(source.forward())

    # A frame may come up to half a frame early, as the grid of a constant rate demands.
    for slot, number in enumerate(shown):
        early, due = ((slot + half) * 1000 / rate for half in (-0.51, 0.51))
        candidates = [k for k, time in enumerate(since_first) if time <= due]
        oldest = max((k for k, time in enumerate(since_first) if time <= early), default=0)
        assert oldest <= number <= candidates[-1]
    # How long the last picture lasts is not agreed upon among versions of ffmpeg.
    *_, before, last = since_first
    ends = [1000 * source.video.duration, last, last + (last - before)]
    assert min(ends) * rate / 1000 - 3 <= len(shown) <= max(ends) * rate / 1000 + 3


def test_a_film_that_starts_late_in_its_file_is_read_from_its_first_frame(tmp_path: Path) -> None:
    path = film(tmp_path / "late.mp4", 24, output="-output_ts_offset 1.5")

    frames = list(reader(path).forward())

    assert numbers_of(frames) == list(range(24))


def test_a_film_that_was_trimmed_without_encoding_is_read_from_the_trim(tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mp4", 60, "30", output="-g 30 -bf 2")
    path = tmp_path / "trimmed.mp4"
    run_ffmpeg("-ss", "1.2", "-i", f"{whole}", "-c", "copy", f"{path}")

    frames = list(reader(path).forward())

    assert numbers_of(frames) == list(range(36, 60))


# -- in parts: what playing backwards rests on -----------------------------------------------------

SLICED = {
    "one long group": {"name": "film.mp4", "output": "-g 300 -bf 3"},
    "short groups": {"name": "film.mp4", "output": "-g 8 -bf 3"},
    "matroska": {"name": "film.mkv", "output": "-g 8 -bf 3"},
    "webm with hidden frames": {
        "name": "film.webm",
        "output": "-c:v libvpx-vp9 -cpu-used 8 -g 15 -auto-alt-ref 1 -lag-in-frames 16",
    },
    "webm as streamed": {"name": "film.webm", "output": f"{VP8} -g 10 -f webm -live 1"},
    "open groups, h264": {"name": "film.mp4", "output": "-g 12 -bf 3 -x264-params open-gop=1"},
    "open groups, hevc": {"name": "film.mp4", "output": f"{HEVC}:keyint=12:bframes=3:open-gop=1"},
    "mpeg4": {"name": "film.mp4", "output": "-c:v mpeg4 -g 10 -bf 2 -q:v 2"},
    "late start, mp4": {"name": "film.mp4", "output": "-g 8 -bf 3 -output_ts_offset 1.5"},
    "late start, matroska": {"name": "film.mkv", "output": "-g 8 -output_ts_offset 2.5"},
    "late start, webm": {"name": "film.webm", "output": f"{VP8} -g 8 -output_ts_offset 1.5"},
    "no edit list": {"name": "film.mp4", "output": "-g 8 -bf 3 -use_editlist 0"},
    "fragments": {
        "name": "film.mp4",
        "output": "-g 8 -bf 3 -movflags +frag_keyframe+empty_moov",
    },
    "phone": {"name": "film.mp4", "times_ms": PHONE_MS, "output": "-g 20 -bf 2"},
    "screen": {"name": "film.mp4", "times_ms": SCREEN_MS, "output": "-g 8 -bf 2"},
    "screen, matroska": {"name": "film.mkv", "times_ms": SCREEN_MS, "output": "-g 8 -bf 2"},
    "slow": {
        "name": "film.mp4",
        "fps": "2",
        "output": "-preset medium -g 6 -bf 6 -x264-params open-gop=1:b-pyramid=normal",
    },
    "with sound": {"name": "film.mp4", "output": "-g 8 -bf 3 -c:a aac", "voice": True},
}


@pytest.mark.parametrize("kind", SLICED)
def test_any_part_of_a_film_is_bit_for_bit_what_a_reading_from_the_start_gives(
    tmp_path: Path, kind: str
) -> None:
    options = dict(SLICED[kind])
    voice = sound(tmp_path / "voice.wav", 2.0) if options.pop("voice", False) else None
    path = film(tmp_path / options.pop("name"), 60, **({"fps": "30"} | options), voice=voice)
    # Not quite its own rate, as for a film that says nothing of it.
    source = reader(path, None if "fps" in options else Fraction(30000, 1001))
    whole = _pictures(source)
    parts = _parts(len(whole), 5)

    with ThreadPoolExecutor() as pool:
        read = list(pool.map(lambda part: _pictures(source, *part), parts))

    assert not [
        part for part, found in zip(parts, read, strict=True) if found != whole[slice(*part)]
    ]


def _pictures(source: FrameReader, start: int = 0, stop: int | None = None) -> list[bytes]:
    return [frame.buffer.tobytes() for frame in source.forward(start, stop)]


def _parts(frames: int, some: int) -> list[tuple[int, int]]:
    """Return both ends, and some parts of any length, the same each time."""
    chance = Random(frames)
    starts = [chance.randrange(1, frames - 1) for _ in range(some)]
    anywhere = [(start, chance.randrange(start + 1, frames + 1)) for start in starts]
    return [(1, 2), (frames - 1, frames), *anywhere]


def test_a_part_that_reaches_beyond_the_end_stops_at_the_end(tmp_path: Path) -> None:
    source = reader(film(tmp_path / "film.mp4", 30, output="-g 8"))

    frames = list(source.forward(25, 1000))

    assert numbers_of(frames) == [25, 26, 27, 28, 29]


# -- back and forth --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> FrameReader:
    """Film 80 frames that do not fit into one chunk."""
    path = tmp_path_factory.mktemp("large") / "film.mp4"
    source = reader(film(path, 80, output="-vf scale=1280:720:flags=neighbor -g 30 -bf 3"))
    assert CHUNK_BYTES // Frame.size_bytes(1280, 720) < 40
    return source


@pytest.mark.parametrize("mode", [SyncMode.BOUNCE, SyncMode.LOOP, SyncMode.REMAP])
def test_a_film_that_does_not_fit_into_memory_plays_in_every_order(
    large: FrameReader, mode: SyncMode
) -> None:
    due = [index for indices in passes(mode, 80, 170) for index in indices]

    played = [(index, number_of(frame)) for index, frame in large.play(passes(mode, 80, 170), 80)]

    assert played == [(index, index) for index in due]


def test_playing_backwards_gives_the_very_pictures_of_playing_forwards(large: FrameReader) -> None:
    forwards = _pictures(large)

    backwards = [frame.buffer.tobytes() for _, frame in large.play([range(79, -1, -1)], 80)]

    assert backwards == forwards[::-1]


def test_playing_backwards_holds_no_more_than_a_chunk(large: FrameReader) -> None:
    tracemalloc.start()

    for _ in large.play([range(79, -1, -1)], 80):
        pass

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    frame_bytes = Frame.size_bytes(1280, 720)
    assert most < max(CHUNK_BYTES, CHUNK_FRAMES * frame_bytes) + 3 * frame_bytes


def test_a_short_film_plays_in_every_order_too(tmp_path: Path) -> None:
    source = reader(film(tmp_path / "film.mp4", 10))
    order = [range(10), range(9, -1, -1), [0, 0, 3, 3, 9]]

    played = [(index, number_of(frame)) for index, frame in source.play(order, 10)]

    due = [index for indices in order for index in indices]
    assert played == [(index, index) for index in due]


def test_a_film_that_ends_before_its_time_is_an_error_and_no_shorter_result(
    large: FrameReader,
) -> None:
    playing = large.play([range(100)], 100)

    with pytest.raises(MediaUnreadable, match="ended before its frame 80"):
        list(playing)


# -- as a viewer sees it ---------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_phones_film_stands_upright_however_it_was_held(tmp_path: Path, orientation: int) -> None:
    path = film(tmp_path / "phone.mp4", 12, size=(64, 48), orientation=orientation)

    frames = list(reader(path).forward())

    assert (frames[0].width, frames[0].height) == (64, 48)
    assert numbers_of(frames) == list(range(12))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_stands_upright_however_the_camera_was_held(
    tmp_path: Path, orientation: int
) -> None:
    path = still(tmp_path / "photo.jpg", 1, (48, 64), orientation=orientation)

    frames = list(reader(path).forward())

    assert numbers_of(frames) == [1]


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("odd.mp4", "-pix_fmt yuv444p"),
        ("odd.webm", VP9),
    ],
)
def test_an_odd_line_is_cut_off_and_nothing_moves(tmp_path: Path, name: str, output: str) -> None:
    path = film(tmp_path / name, 12, size=(65, 49), output=output)

    frames = list(reader(path).forward())

    assert (frames[0].width, frames[0].height) == (64, 48)
    assert numbers_of(frames) == list(range(12))


@pytest.mark.parametrize(
    ("shape", "orientation", "seen"),
    [
        ("4/3", 1, (84, 48)),
        ("3/4", 1, (48, 48)),
        ("16/15", 1, (68, 48)),
        # Held upright: what is stored lies on its side, and its pixels are 4/3 high when turned.
        ("4/3", 6, (64, 64)),
    ],
)
def test_pixels_that_are_not_square_are_made_so(
    tmp_path: Path, shape: str, orientation: int, seen: tuple[int, int]
) -> None:
    path = film(tmp_path / "film.mp4", 12, orientation=orientation, output=f"-vf setsar={shape}")

    frames = list(reader(path).forward())

    assert (frames[0].width, frames[0].height) == seen
    assert numbers_of(frames) == list(range(12))


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("ten bits.mp4", "-pix_fmt yuv420p10le"),
        ("ten bits, more colour.mp4", "-pix_fmt yuv422p10le"),
        ("full range.mp4", "-pix_fmt yuvj420p"),
        ("full colour.mp4", "-pix_fmt yuv444p"),
        ("red, green and blue.mp4", "-c:v libx264rgb -pix_fmt rgb24"),
        ("see-through.webm", f"{VP9} -pix_fmt yuva420p"),
    ],
)
def test_every_way_to_store_a_picture_comes_out_as_eight_bits_of_limited_range(
    tmp_path: Path, name: str, output: str
) -> None:
    path = film(tmp_path / name, [5, 5], output=f"{output} -crf 4")

    shown, _ = reader(path).forward()

    for plane, drawn in zip(shown.planes, frame(5).planes, strict=True):
        assert abs(plane.astype(int) - drawn).max() <= 4


def test_a_red_wall_in_high_definition_keeps_its_red(tmp_path: Path) -> None:
    path = tmp_path / "wall.png"
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=1280x720", "-frames:v", "1", f"{path}")

    (shown,) = reader(path).forward()

    # Untagged pictures of that size are taken for BT.709, and tagged so on writing.
    luma, blue, red = (round(float(plane.mean())) for plane in shown.planes)
    assert (luma, blue, red) == pytest.approx((63, 102, 240), abs=1)


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.webp", "photo.bmp"])
def test_a_still_image_is_one_frame(tmp_path: Path, name: str) -> None:
    path = still(tmp_path / name, 7)

    frames = list(reader(path).forward())

    assert numbers_of(frames) == [7]


@pytest.mark.parametrize("rate", ["1", "10", "24000/1001", "50", "60"])
def test_a_still_image_is_one_frame_at_any_rate(tmp_path: Path, rate: str) -> None:
    path = still(tmp_path / "photo.png", 7)

    frames = list(reader(path, Fraction(rate)).forward())

    assert numbers_of(frames) == [7]


@pytest.mark.parametrize("pixels", ["gray", "rgba", "pal8", "rgb48be"])
def test_every_kind_of_png_is_read(tmp_path: Path, pixels: str) -> None:
    path = still(tmp_path / "photo.png", 7, output=f"-pix_fmt {pixels}")

    frames = list(reader(path).forward())

    assert numbers_of(frames) == [7]


def test_a_photograph_with_a_second_picture_behind_it_is_one_frame(tmp_path: Path) -> None:
    # Phones append a brightness map or a depth map, itself a JPEG.
    photo, behind = still(tmp_path / "photo.jpg", 7), still(tmp_path / "map.jpg", 9, (32, 24))
    path = tmp_path / "face.bin"
    path.write_bytes(photo.read_bytes() + behind.read_bytes())

    frames = list(reader(path).forward())

    assert numbers_of(frames) == [7]


@pytest.mark.parametrize("later", [(96, 72), (48, 36), (48, 64)])
def test_a_recording_that_changes_its_size_keeps_the_one_it_began_with(
    tmp_path: Path, later: tuple[int, int]
) -> None:
    # As browsers do when the line gets worse, or the phone is turned.
    stream = tmp_path / "both.h264"
    film(tmp_path / "a.h264", range(12), output="-f h264")
    film(tmp_path / "b.h264", range(12, 24), size=later, output="-f h264")
    parts = ((tmp_path / name).read_bytes() for name in ("a.h264", "b.h264"))
    stream.write_bytes(b"".join(parts))
    path = tmp_path / "film.mp4"
    run_ffmpeg("-f", "h264", "-r", "25", "-i", f"{stream}", "-c", "copy", f"{path}")

    frames = list(reader(path).forward())

    assert {(frame.width, frame.height) for frame in frames} == {(64, 48)}
    assert numbers_of(frames) == list(range(24))


# -- when it goes wrong ----------------------------------------------------------------------------


def test_a_film_of_which_nothing_can_be_decoded_is_unreadable(
    tmp_path: Path, running: Callable[[], list[str]]
) -> None:
    path = film(tmp_path / "film.mp4", 60, output="-movflags +faststart")
    source = reader(path)
    content = bytearray(path.read_bytes())
    first = content.index(b"mdat") + 4
    content[first:] = Random(1).randbytes(len(content) - first)
    path.write_bytes(content)

    with pytest.raises(MediaUnreadable) as failure:
        list(source.forward())

    assert f"{tmp_path}" not in f"{failure.value} {failure.value.details}"
    assert not running()


def test_whoever_stops_looking_leaves_no_decoder_behind(
    large: FrameReader, running: Callable[[], list[str]]
) -> None:
    frames = large.forward()
    next(frames)
    assert running() == ["ffmpeg"]

    frames.close()

    assert not running()


def test_a_recording_without_a_frame_rate_is_read_at_the_rate_asked_for(tmp_path: Path) -> None:
    path = forget_frame_rate(film(tmp_path / "film.webm", 40, "30", output=f"{VP8} -live 1"))

    frames = list(reader(path, Fraction(30)).forward())

    assert numbers_of(frames) == list(range(40))
