"""Cases 16 to 28: files of strangers, as they come through the door of a worker.

Each of them, and a hundred more, is looked at closely in ``tests/test_hostile_media.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from handler import Failure, Success
from tests import clips
from tests.adapters.transfer.loopback import Site, body, serving, status
from tests.conftest import ASSETS
from tests.corpus.attacks import ATTACKS
from tests.corpus.specimen import Material
from tests.faults.aftermath import QUERY, Watched, verdict, watched_process

SENDERS_FAULT = ("media_error", False, "validation")
FACELESS = ("media_error", False, "preprocessing")
FIELDS = {"face": "video_url", "voice": "audio_url"}
VOICE_SECONDS = 0.4
SQUARE = (128, 128)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, good: Mapping[str, str]) -> Iterator[Watched]:
    place = tmp_path_factory.mktemp("media")
    with watched_process(place, good, MAX_DOWNLOAD_MB="20") as worker:
        yield worker


@pytest.fixture(scope="module")
def canary() -> Iterator[Site]:
    """Be a server that nobody has a reason to speak to."""
    with serving(status(404)) as site:
        yield site


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, canary: Site) -> Material:
    return Material.prepare(tmp_path_factory.mktemp("material"), canary.url)


def sent(worker: Watched, content: bytes, role: str = "face", **fields: str) -> Success | Failure:
    """Have a job done with a stranger's file that calls itself a film."""
    with serving(body(content)) as site:
        return worker.do(**fields, **{FIELDS[role]: f"{site.url}/film.mp4?{QUERY}"})


# -- what nobody can use ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "names"),
    [
        pytest.param(
            "face", ("nothing", "a web page", "noise", "a letter"), id="16 no media at all"
        ),
        pytest.param(
            "face",
            (
                "a playlist of a local film",
                "a playlist of a web address",
                "a script of a web address",
                "a manifest of a web address",
                "a session description",
            ),
            id="17 playlists, scripts and manifests",
        ),
        pytest.param(
            "face", ("a film without its index", "a film cut at 60 percent"), id="18 cut off"
        ),
        pytest.param("face", ("60 flipped bits in the media",), id="19 flipped bits"),
        pytest.param(
            "face",
            (
                "very many sample sizes",
                "a clock that does not tick",
                "an index larger than the file",
                "a box of negative size",
            ),
            id="20 lying numbers",
        ),
        pytest.param(
            "face",
            ("a film of 8192 x 8192", "a photograph of 12000 x 12000"),
            id="21 very many pixels",
        ),
        pytest.param(
            "face",
            ("two frames six hours apart", "a thousand frames a second", "300 streams"),
            id="22 bombs for the eye",
        ),
        pytest.param("voice", ("one sample a second", "64 channels"), id="22 bombs for the ear"),
        pytest.param(
            "face", ("MagicYUV", "FFV1", "motion JPEG", "ProRes"), id="23 codecs nobody needs"
        ),
        pytest.param("face", ("a voice alone", "a song with a cover"), id="24 without a picture"),
        pytest.param("voice", ("a picture alone",), id="24 without a sound"),
        pytest.param("face", ("two by two pixels", "one frame"), id="25 too little to see"),
        pytest.param(
            "voice", ("ten milliseconds", "no samples", "silence"), id="25 too little to hear"
        ),
        pytest.param("face", ("a grey wall",), id="27 no face"),
        pytest.param(
            "face", ("a title of orders", "a title of a megabyte"), id="28 titles of a film"
        ),
        pytest.param("voice", ("a spoken title of orders",), id="28 titles of a voice"),
    ],
)
def test_a_file_is_taken_for_what_it_is_and_what_cannot_be_used_is_the_senders_fault(
    worker: Watched,
    material: Material,
    canary: Site,
    tmp_path: Path,
    role: str,
    names: Sequence[str],
) -> None:
    for name in names:
        result = sent(worker, ATTACKS[name].make(material.at(tmp_path)), role)

        code = result.error_code if isinstance(result, Failure) else "success"
        assert code in ATTACKS[name].expected[role], name
        if isinstance(result, Failure):
            faceless = code == "face_not_found"
            assert verdict(result) == (FACELESS if faceless else SENDERS_FAULT), name
    assert canary.connections == 0
    assert not [*Path().glob("executed*"), *worker.scratch.rglob("executed*")]


# -- what only looks odd ---------------------------------------------------------------------------

_MP4 = "-c:v libx264 -preset ultrafast"
_ALPHA = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuva420p"
_HDR = "-pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc"
_SMALL = "scale=128:128"


@pytest.mark.parametrize(
    ("name", "words", "orientation", "size"),
    [
        pytest.param(
            "film.mp4",
            f"-vf {_SMALL},pad=160:128:16:0,transpose=cclock {_MP4}",
            6,
            (160, 128),
            id="26 on its side",
        ),
        pytest.param(
            "film.mp4",
            f"-vf {_SMALL},select=lt(n\\,4)+not(mod(n\\,3)) -fps_mode vfr {_MP4}",
            1,
            SQUARE,
            id="26 of varying rate",
        ),
        pytest.param(
            "film.mp4",
            f"-vf scale=129:131 -pix_fmt yuv444p {_MP4}",
            1,
            (128, 130),
            id="26 of odd size",
        ),
        pytest.param(
            "film.mp4", f"-vf {_SMALL} -pix_fmt yuv420p10le {_MP4}", 1, SQUARE, id="26 of ten bits"
        ),
        pytest.param("film.mp4", f"-vf {_SMALL} {_HDR} {_MP4}", 1, SQUARE, id="26 of high range"),
        pytest.param("film.webm", f"-vf {_SMALL} {_ALPHA}", 1, SQUARE, id="26 half transparent"),
        pytest.param(
            "film.png",
            f"-vf {_SMALL},format=rgba -frames:v 1",
            1,
            SQUARE,
            id="26 a transparent picture",
        ),
        pytest.param(
            "film.mp4",
            f"-vf {_SMALL},split[a][b];[a][b]hstack {_MP4}",
            1,
            (256, 128),
            id="27 of two people",
        ),
    ],
)
def test_an_odd_film_comes_out_upright_and_as_long_as_its_voice(
    worker: Watched, tmp_path: Path, name: str, words: str, orientation: int, size: tuple[int, int]
) -> None:
    film = tmp_path / name
    clips.run_ffmpeg("-t", "0.5", "-i", f"{ASSETS / 'face.mp4'}", "-an", *words.split(), f"{film}")
    if orientation != 1:
        clips.turn(film, orientation)

    result = sent(worker, film.read_bytes())

    assert isinstance(result, Success), result
    assert (result.output.width, result.output.height) == size
    assert abs(result.output.duration - VOICE_SECONDS) < 0.05
    assert not [warning for warning in result.warnings if "no face" in warning]


def test_27_frames_that_lose_the_face_are_kept_and_counted(worker: Watched, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    gone = f"{_SMALL},drawbox=t=fill:color=gray:enable=gte(t\\,0.5)"
    clips.run_ffmpeg("-t", "1", "-i", f"{ASSETS / 'face.mp4'}", "-vf", gone, "-an", f"{film}")

    result = sent(worker, film.read_bytes(), sync_mode="silence")

    assert isinstance(result, Success), result
    assert [warning for warning in result.warnings if "show no face and were kept" in warning]
