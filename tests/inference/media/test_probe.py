"""Probing: what is let in, what is refused and as what, and whether the description is true."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from random import Random

import pytest

from handler.errors import (
    AudioEmpty,
    MediaError,
    MediaTooLarge,
    MediaTooLong,
    MediaUnreadable,
    OutputInvalid,
    StreamMissing,
    UnsupportedMedia,
)
from handler.ports import AudioInfo
from inference.media.limits import STILL_FACTOR, Limits
from inference.media.probe import FfprobeGate
from tests.clips import (
    FILMS,
    HEVC,
    RATES,
    VOICES,
    VP8,
    VP9,
    film,
    forget_frame_rate,
    run_ffmpeg,
    sound,
    still,
)

GATE = FfprobeGate(Limits())
#: A file of a kind that is not accepted: whether it is known at all is ffmpeg's affair.
REFUSED = (MediaUnreadable, UnsupportedMedia)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep a film, a voice and a cover picture that many tests put together."""
    place = tmp_path_factory.mktemp("probe")
    film(place / "film.mp4", 50)
    sound(place / "voice.wav", 2.0, loudness=0.1)
    still(place / "cover.jpg", 5, (96, 96))
    return place


# -- what is no media at all -----------------------------------------------------------------------

NO_MEDIA = {
    "nothing": b"",
    "a web page": b"<!doctype html><html><title>404 Not Found</title></html>" * 9,
    "noise": Random(1).randbytes(9999),
    "a picture made of words": b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>',
    "the beginning of a film": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom",
    "the beginning of a photograph": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
}


@pytest.mark.parametrize("content", NO_MEDIA.values(), ids=NO_MEDIA)
def test_what_is_no_media_is_neither_a_face_nor_a_voice(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.mp4"
    path.write_bytes(content)

    with pytest.raises(MediaError) as no_face:
        GATE.face(path)
    with pytest.raises(MediaError) as no_voice:
        GATE.voice(path)

    for failure in (no_face, no_voice):
        assert not failure.value.retryable
        assert f"{tmp_path}" not in f"{failure.value} {failure.value.details}"


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{film}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile film.mp4\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<Period><AdaptationSet><Representation><BaseURL>{film}</BaseURL></Representation>"
    "</AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_list_that_points_to_other_files_is_refused_whatever_it_calls_itself(
    place: Path, kind: str
) -> None:
    path = place / "playlist.mp4"
    path.write_text(PLAYLISTS[kind].format(film=place / "film.mp4"))

    with pytest.raises(REFUSED):
        GATE.face(path)


def test_a_name_that_ffmpeg_would_read_as_an_order_is_only_a_name(place: Path) -> None:
    path = place / "-i concat:%d|*.mp4"
    path.write_bytes((place / "film.mp4").read_bytes())

    info = GATE.face(path)

    assert info.codec == "h264"


# -- faces -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "output", "codec"), FILMS)
def test_every_accepted_film_is_described(
    tmp_path: Path, name: str, output: str, codec: str
) -> None:
    path = film(tmp_path / name, 30, output=output)

    info = GATE.face(path)

    assert (info.codec, info.width, info.height, info.fps) == (codec, 64, 48, 25)
    assert info.duration == pytest.approx(1.2, abs=0.01)


@pytest.mark.parametrize("codec", ["mjpeg", "ffv1", "magicyuv", "prores", "huffyuv", "mpeg2video"])
def test_a_film_of_a_codec_that_is_not_accepted_is_refused(
    place: Path, tmp_path: Path, codec: str
) -> None:
    path = tmp_path / "film.mkv"
    pixels = {"mjpeg": "yuvj420p", "magicyuv": "yuv444p", "prores": "yuv422p10le"}
    converted = ("-pix_fmt", pixels.get(codec, "yuv420p"), "-c:v", codec)
    run_ffmpeg("-i", f"{place}/film.mp4", *converted, f"{path}")

    with pytest.raises(REFUSED):
        GATE.face(path)


@pytest.mark.parametrize("name", ["film.avi", "film.ts", "film.flv", "film.gif", "film.y4m"])
def test_a_container_that_is_not_accepted_is_refused(
    place: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    run_ffmpeg("-i", f"{place}/film.mp4", f"{path}")

    with pytest.raises(REFUSED):
        GATE.face(path)


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.webp", "photo.bmp"])
def test_a_still_image_is_told_by_its_content_and_has_no_frame_rate(
    tmp_path: Path, name: str
) -> None:
    path = still(tmp_path / name).rename(tmp_path / "face.mp4")

    info = GATE.face(path)

    assert (info.width, info.height, info.fps, info.duration) == (64, 48, None, 0)


def test_a_film_is_told_by_its_content_even_if_it_calls_itself_an_image(place: Path) -> None:
    path = place / "film.png"
    path.write_bytes((place / "film.mp4").read_bytes())

    info = GATE.face(path)

    assert info.fps == 25


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_film_is_described_as_it_is_seen_not_as_it_is_stored(
    tmp_path: Path, orientation: int
) -> None:
    path = film(
        tmp_path / "film.mp4", size=(48, 64), orientation=orientation, output="-vf setsar=1"
    )

    info = GATE.face(path)

    assert (info.width, info.height) == (48, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_described_as_it_is_seen(tmp_path: Path, orientation: int) -> None:
    path = still(tmp_path / "photo.jpg", 1, (48, 64), orientation=orientation)

    info = GATE.face(path)

    assert (info.width, info.height) == (48, 64)


def test_a_voice_without_a_picture_is_no_face(place: Path) -> None:
    with pytest.raises(StreamMissing, match="no picture"):
        GATE.face(place / "voice.wav")


@pytest.mark.parametrize("name", ["song.mp3", "song.m4a", "song.flac"])
def test_the_cover_of_a_song_is_no_face(place: Path, tmp_path: Path, name: str) -> None:
    path = _with_cover(place / "voice.wav", place / "cover.jpg", tmp_path / name)

    with pytest.raises(StreamMissing, match="no picture"):
        GATE.face(path)


def test_a_film_with_a_cover_is_read_for_its_film(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    parts = ("-i", f"{place}/cover.jpg", "-i", f"{place}/film.mp4")
    cover = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic")
    run_ffmpeg(*parts, *cover, f"{path}")

    info = GATE.face(path)

    assert (info.codec, info.fps) == ("h264", 25)


@pytest.mark.parametrize(("name", "codec"), [("film.mp4", "mov_text"), ("film.mkv", "srt")])
def test_a_film_with_subtitles_is_a_face(
    place: Path, tmp_path: Path, name: str, codec: str
) -> None:
    words = tmp_path / "words.srt"
    words.write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    path = tmp_path / name
    copied = ("-c:v", "copy", "-c:s", codec)
    run_ffmpeg("-i", f"{place}/film.mp4", "-i", f"{words}", *copied, f"{path}")

    info = GATE.face(path)

    assert info.codec == "h264"


@pytest.mark.parametrize(("name", "codec"), [("film.mp4", "ac3"), ("film.mov", "pcm_s16be")])
def test_a_face_may_have_a_sound_that_nobody_needs_to_decode(
    place: Path, tmp_path: Path, name: str, codec: str
) -> None:
    path = tmp_path / name
    both = ("-i", f"{place}/film.mp4", "-i", f"{place}/voice.wav")
    run_ffmpeg(*both, "-c:v", "copy", "-c:a", codec, "-ar", "48000", f"{path}")

    info = GATE.face(path)

    assert info.codec == "h264"


# -- limits ----------------------------------------------------------------------------------------

SIZED = {
    "h264": ("film.mp4", ""),
    "hevc": ("film.mp4", HEVC),
    "vp9": ("film.webm", VP9),
    "png": ("photo.png", ""),
    "jpeg": ("photo.jpg", ""),
    "webp": ("photo.webp", ""),
}


@pytest.mark.parametrize("kind", SIZED)
def test_a_picture_may_have_as_many_pixels_as_the_limit_says(tmp_path: Path, kind: str) -> None:
    path = _picture_file(tmp_path, kind)

    info = FfprobeGate(Limits(max_pixels=_video_pixels(kind, 64 * 48))).face(path)

    assert info.width * info.height == 64 * 48


@pytest.mark.parametrize("most", [64 * 48 - 1, 64 * 48 // 4])
@pytest.mark.parametrize("kind", SIZED)
def test_a_picture_with_more_pixels_is_refused_for_its_size(
    tmp_path: Path, kind: str, most: int
) -> None:
    path = _picture_file(tmp_path, kind)

    with pytest.raises(MediaTooLarge, match="pixels"):
        FfprobeGate(Limits(max_pixels=_video_pixels(kind, most))).face(path)


def test_a_picture_too_small_for_a_face_is_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", size=(64, 30))

    with pytest.raises(UnsupportedMedia, match="64x30"):
        GATE.face(path)


def test_a_picture_that_would_be_shown_huge_is_refused_however_small_it_is_stored(
    tmp_path: Path,
) -> None:
    path = film(tmp_path / "film.mkv", output="-vf setsar=5000/1:max=5000")

    with pytest.raises(MediaTooLarge, match="shown as"):
        GATE.face(path)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.webm"])
def test_a_film_of_one_frame_is_refused_with_the_advice_to_send_an_image(
    tmp_path: Path, name: str
) -> None:
    path = film(tmp_path / name, 1, output=VP8 if name.endswith("webm") else "")

    with pytest.raises(UnsupportedMedia, match="send it as a still image"):
        GATE.face(path)


def test_a_note_on_the_length_that_is_no_length_is_not_believed(
    place: Path, tmp_path: Path
) -> None:
    path = tmp_path / "film.mkv"
    run_ffmpeg("-i", f"{place}/film.mp4", "-c", "copy", f"{path}")
    path.write_bytes(path.read_bytes().replace(b"00:00:02.", b"two hours", 1))

    info = GATE.face(path)

    assert info.duration == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_a_film_that_has_much_to_say_about_itself_is_a_film(
    place: Path, tmp_path: Path, name: str
) -> None:
    notes, path = tmp_path / "notes.txt", tmp_path / name
    notes.write_text(";FFMETADATA1\ntitle=" + "\1" * 10**6)
    copied = ("-map_metadata", "1", "-c", "copy")
    run_ffmpeg("-i", f"{place}/film.mp4", "-i", f"{notes}", *copied, f"{path}")

    info = GATE.face(path)

    assert path.stat().st_size > 10**6
    assert info.duration == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("rate", ["0.5", "240", "1000"])
def test_a_frame_rate_that_no_camera_has_is_refused(tmp_path: Path, rate: str) -> None:
    path = film(tmp_path / "film.mp4", 4, rate)

    with pytest.raises(UnsupportedMedia, match="frames a second"):
        GATE.face(path)


def test_a_film_that_lasts_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    # Two frames, six hours apart: a few kilobytes that would be half a million frames.
    path = film(tmp_path / "film.mkv", 2, times_ms=[0, 6 * 3600 * 1000])

    with pytest.raises(MediaTooLong, match="21600 s"):
        GATE.face(path)


def test_a_film_with_very_many_streams_is_refused(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    run_ffmpeg("-i", f"{place}/film.mp4", *["-map", "0"] * 17, "-c", "copy", f"{path}")

    with pytest.raises(MediaUnreadable, match="at most 16"):
        GATE.face(path)


# -- frame rates and lengths -----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rate"), RATES)
def test_the_exact_frame_rate_is_found(tmp_path: Path, name: str, rate: str) -> None:
    path = film(tmp_path / name, 48, rate, output="-bf 2")

    info = GATE.face(path)

    assert info.fps == Fraction(rate)


def test_a_phones_film_is_read_at_the_rate_it_was_meant_to_have(tmp_path: Path) -> None:
    times = [33 * frame + Random(frame).randrange(-7, 8) for frame in range(1, 91)]
    path = film(tmp_path / "film.mp4", 90, "30", times_ms=times)

    info = GATE.face(path)

    assert info.fps == pytest.approx(30, abs=0.1)


def test_a_film_of_very_uneven_rate_is_read_at_a_usual_rate_above_its_mean(tmp_path: Path) -> None:
    times = list(accumulate([17, 33, 120, 33, 50, 67] * 10, initial=0))[:60]
    path = film(tmp_path / "film.mp4", 60, "30", times_ms=times)

    info = GATE.face(path)

    assert Fraction(60_000, times[-1]) <= info.fps <= 30


@pytest.mark.parametrize("light", ["daylight", "dusk"])
@pytest.mark.parametrize(
    ("name", "output"),
    [("chrome.webm", f"{VP8} -live 1"), ("chrome.mkv", "-f matroska -live 1 -bf 0")],
)
def test_a_recording_made_in_a_browser_is_accepted(
    tmp_path: Path, name: str, output: str, light: str
) -> None:
    # No duration, no frame rate, and timestamps as uneven as the camera and the browser were.
    gaps = {"daylight": range(25, 43), "dusk": range(15, 90)}[light]
    chance = Random(1)
    times = [0, *accumulate(chance.choice(gaps) for _ in range(119))]
    path = forget_frame_rate(film(tmp_path / name, 120, "30", times_ms=times, output=output))

    info = GATE.face(path)

    assert 120_000 / times[-1] - 1 <= info.fps <= 60


def test_the_length_of_a_face_is_that_of_its_picture_not_of_a_longer_sound(
    place: Path, tmp_path: Path
) -> None:
    # Else it would pass for a film that is cut off.
    voice = sound(tmp_path / "voice.wav", 5.0)
    path = tmp_path / "film.mp4"
    run_ffmpeg("-i", f"{place}/film.mp4", "-i", f"{voice}", "-c:v", "copy", f"{path}")

    info = GATE.face(path)

    assert info.duration == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_the_length_of_a_face_does_not_count_the_time_before_its_first_frame(
    tmp_path: Path, name: str
) -> None:
    path = film(tmp_path / name, 50, output="-output_ts_offset 1.5")

    info = GATE.face(path)

    assert info.duration == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.webm"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.85])
def test_a_film_that_is_cut_off_is_unreadable_however_short_the_voice(
    tmp_path: Path, name: str, share: float
) -> None:
    words = VP8 if name.endswith("webm") else "-movflags +faststart"
    path = film(tmp_path / name, 50, size=(128, 96), output=words)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(MediaUnreadable, match="cut off"):
        GATE.face(path)


def test_a_film_that_lacks_its_last_bytes_is_a_film(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 50, size=(128, 96), output="-movflags +faststart")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 97 // 100])

    info = GATE.face(path)

    assert info.duration == pytest.approx(2)


def test_a_film_whose_index_was_cut_off_is_unreadable(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 50)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])

    with pytest.raises(MediaUnreadable):
        GATE.face(path)


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.webp"])
def test_a_photograph_that_is_cut_off_at_once_is_unreadable(tmp_path: Path, name: str) -> None:
    path = still(tmp_path / name, 5, (320, 240))
    path.write_bytes(path.read_bytes()[:64])

    with pytest.raises(MediaUnreadable):
        GATE.face(path)


def test_the_colour_tags_of_a_film_are_kept(tmp_path: Path) -> None:
    tags = "range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    path = film(tmp_path / "film.mp4", output=f"-vf setparams={tags}")

    info = GATE.face(path)

    assert info.color == {
        "color_range": "tv",
        "color_space": "bt709",
        "color_transfer": "bt709",
        "color_primaries": "bt709",
    }


# -- voices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rate_hz", "output", "codec"), VOICES)
def test_every_accepted_sound_is_described(
    tmp_path: Path, name: str, rate_hz: int, output: str, codec: str
) -> None:
    path = sound(tmp_path / name, 2.5, rate_hz, click_at=1.25, output=output)

    info = GATE.voice(path)

    assert (info.codec, info.rate_hz, info.channels) == (codec, rate_hz, 1)
    assert info.duration == pytest.approx(2.5, abs=0.05)


def test_the_sound_of_a_film_is_a_voice(place: Path, tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 50, voice=place / "voice.wav", output="-c:a aac")

    info = GATE.voice(path)

    assert info.codec == "aac"


@pytest.mark.parametrize("name", ["song.mp3", "song.m4a", "song.flac"])
def test_a_sound_with_a_cover_picture_is_a_voice(place: Path, tmp_path: Path, name: str) -> None:
    path = _with_cover(place / "voice.wav", place / "cover.jpg", tmp_path / name)

    info = GATE.voice(path)

    assert info.duration == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name", ["film.mp4", "cover.jpg"])
def test_a_picture_without_sound_is_no_voice(place: Path, name: str) -> None:
    with pytest.raises(StreamMissing, match="no sound"):
        GATE.voice(place / name)


def test_silence_is_a_voice(tmp_path: Path) -> None:
    info = GATE.voice(sound(tmp_path / "silence.wav", 1.5))

    assert info == AudioInfo(codec="pcm_s16le", rate_hz=16_000, channels=1, duration=1.5)


@pytest.mark.parametrize("name", ["empty.wav", "empty.flac"])
def test_a_sound_without_a_sample_is_empty(tmp_path: Path, name: str) -> None:
    path = sound(tmp_path / name, 0)

    with pytest.raises(AudioEmpty):
        GATE.voice(path)


@pytest.mark.parametrize(("rate_hz", "channels"), [(4_000, 1), (384_000, 1), (48_000, 9)])
def test_a_sound_of_a_rate_or_width_that_no_voice_has_is_refused(
    tmp_path: Path, rate_hz: int, channels: int
) -> None:
    path = sound(tmp_path / "voice.wav", 0.1, rate_hz, channels)

    with pytest.raises(UnsupportedMedia, match=f"{channels} channels at {rate_hz} Hz"):
        GATE.voice(path)


@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (192_000, 2), (48_000, 8)])
def test_a_sound_at_the_bounds_is_accepted(tmp_path: Path, rate_hz: int, channels: int) -> None:
    path = sound(tmp_path / "voice.wav", 0.5, rate_hz, channels)

    info = GATE.voice(path)

    assert (info.rate_hz, info.channels, info.duration) == (rate_hz, channels, 0.5)


@pytest.mark.parametrize("claimed", [0x7D00, 0xFFFFFFF0], ids=["half", "hours"])
def test_a_wav_files_length_is_what_can_be_heard_not_what_it_claims(
    tmp_path: Path, claimed: int
) -> None:
    path = sound(tmp_path / "voice.wav", 2.0, loudness=0.1)
    _overwrite(path, b"data", 4, claimed)

    info = GATE.voice(path)

    # A reader stops at the end that the header names, if the file reaches that far.
    assert info.duration == (1 if claimed == 0x7D00 else 2)


@pytest.mark.parametrize("claimed", [10, 5000], ids=["less", "more"])
def test_an_mp3_files_length_is_what_can_be_heard_not_what_it_claims(
    tmp_path: Path, claimed: int
) -> None:
    path = sound(tmp_path / "voice.mp3", 4.0, loudness=0.1, output="-q:a 5")
    _overwrite(path, b"Xing", 8, claimed, order="big")

    info = GATE.voice(path)

    assert info.duration == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("claimed", [10, 5000], ids=["less", "more"])
def test_a_voice_that_is_too_long_is_refused_whatever_it_claims(
    tmp_path: Path, claimed: int
) -> None:
    path = sound(tmp_path / "voice.mp3", 4.0, loudness=0.1, output="-q:a 5")
    _overwrite(path, b"Xing", 8, claimed, order="big")

    with pytest.raises(MediaTooLong):
        FfprobeGate(Limits(max_audio_seconds=3)).voice(path)


@pytest.mark.parametrize(
    ("name", "output"), [("voice.m4a", "-movflags +faststart"), ("voice.flac", "")]
)
def test_a_voice_that_is_cut_off_is_unreadable(tmp_path: Path, name: str, output: str) -> None:
    path = sound(tmp_path / name, 4.0, loudness=0.3, output=output)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])

    with pytest.raises(MediaUnreadable, match="cut off"):
        GATE.voice(path)


def test_a_voice_too_short_for_a_frame_is_refused(tmp_path: Path) -> None:
    path = sound(tmp_path / "voice.wav", 0.01, loudness=0.3)

    with pytest.raises(UnsupportedMedia, match=r"lasts 0\.010 s"):
        GATE.voice(path)


# -- finished clips --------------------------------------------------------------------------------


def test_a_finished_clip_is_described_as_it_is_on_disk(place: Path, tmp_path: Path) -> None:
    path = film(tmp_path / "out.mp4", 60, "30000/1001", voice=place / "voice.wav")

    found = GATE.output(path)

    content = path.read_bytes()
    assert (found.width, found.height, found.fps, found.frames) == (64, 48, "30000/1001", 60)
    assert (found.video_codec, found.audio_codec) == ("h264", "aac")
    assert found.duration == pytest.approx(2.002, abs=0.05)
    assert (found.bytes, found.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_finished_clip_without_sound_is_invalid(place: Path) -> None:
    with pytest.raises(OutputInvalid, match="lacks"):
        GATE.output(place / "film.mp4")


def test_a_finished_clip_that_cannot_be_read_back_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"\x00" * 999)

    with pytest.raises(OutputInvalid, match="read back"):
        GATE.output(path)


def test_a_finished_clip_of_other_codecs_is_invalid(place: Path, tmp_path: Path) -> None:
    path = film(tmp_path / "out.mp4", 10, output="-c:v mpeg4", voice=place / "voice.wav")

    with pytest.raises(OutputInvalid, match="mpeg4"):
        GATE.output(path)


def test_half_a_finished_clip_is_invalid(place: Path, tmp_path: Path) -> None:
    path = film(tmp_path / "out.mp4", 50, output="-movflags +faststart", voice=place / "voice.wav")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])

    with pytest.raises(OutputInvalid, match="read back"):
        GATE.output(path)


# -- how the files are made ------------------------------------------------------------------------


def _with_cover(voice: Path, cover: Path, target: Path) -> Path:
    parts = ("-i", f"{voice}", "-i", f"{cover}", "-map", "0", "-map", "1")
    run_ffmpeg(*parts, "-c:v", "copy", "-disposition:v:0", "attached_pic", f"{target}")
    return target


def _video_pixels(kind: str, most: int) -> int:
    """Return the limit for videos under which a picture of that kind may have ``most`` pixels."""
    return most // STILL_FACTOR if SIZED[kind][0].startswith("photo") else most


def _picture_file(place: Path, kind: str) -> Path:
    name, output = SIZED[kind]
    if name.startswith("photo"):
        return still(place / name, output=output)
    return film(place / name, output=output)


def _overwrite(path: Path, mark: bytes, offset: int, number: int, order: str = "little") -> None:
    content = bytearray(path.read_bytes())
    at = content.index(mark) + offset
    content[at : at + 4] = number.to_bytes(4, "big" if order == "big" else "little")
    path.write_bytes(content)
