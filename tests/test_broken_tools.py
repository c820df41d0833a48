"""When ffmpeg hangs, crashes, is missing or finds no room: one job fails, and the next is done."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from adapters.workspace import Workspaces
from handler import Failure
from tests.conftest import Studio, open_studio
from tests.corpus.specimen import Material

#: What tells the runs of ffmpeg apart: reading a voice, reading a face, encoding.
HEARS, SEES, ENCODES = "*f32le*", "*rawvideo*pipe:1*", "*libx264*"
#: Patience for a program that never says anything.
STALL_SECONDS = "1"

#: Put a program in the place of another for a while: its name, and lines of a shell script.
StandIn = Callable[[str, str], AbstractContextManager[None]]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    @contextmanager
    def standing_in(name: str, script: str) -> Iterator[None]:
        folder, real = tmp_path / "bin", shutil.which(name)
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f'#!/bin/sh\nREAL={real}\n{script}\nexec "$REAL" "$@"\n')
        (folder / name).chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
            yield

    return standing_in


@pytest.fixture
def impatient(tmp_path: Path) -> Studio:
    return open_studio(tmp_path / "impatient", ENCODER="libx264", STALL_SEC=STALL_SECONDS)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Material.prepare(tmp_path_factory.mktemp("film")).film


def when(words: str, then: str) -> str:
    """Return a script that does something else if the program is given such words."""
    return f'case "$*" in {words}) {then};; esac'


def nothing_left(studio: Studio) -> bool:
    names = {child.name() for child in psutil.Process().children(recursive=True)}
    return not names & {"ffmpeg", "ffprobe", "sh"} and not list(studio.out.glob("*"))


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["STOP", "SEGV", "KILL"])
@pytest.mark.parametrize(("name", "words"), [("ffprobe", "*"), ("ffmpeg", HEARS), ("ffmpeg", SEES)])
def test_a_reader_that_hangs_or_dies_over_a_file_fails_the_file(
    impatient: Studio,
    studio: Studio,
    stand_in: StandIn,
    film: Path,
    word: Path,
    name: str,
    words: str,
    signal: str,
) -> None:
    with stand_in(name, when(words, f"kill -{signal} $$")):
        failure = impatient.fail(film, word)

    assert (failure.error_type, failure.error_code) == ("media_error", "media_unreadable")
    assert (failure.stage, failure.retryable) == ("validation", False)
    assert nothing_left(impatient)
    studio.film(film, word)


@pytest.mark.parametrize("name", ["ffprobe", "ffmpeg"])
def test_a_missing_program_is_the_workers_fault_and_says_what_to_install(
    studio: Studio,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    film: Path,
    word: Path,
    name: str,
) -> None:
    others = tmp_path / "bin"
    others.mkdir()
    for other in {"ffprobe", "ffmpeg", "prlimit"} - {name}:
        if found := shutil.which(other):
            (others / other).symlink_to(found)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{others}")
        failure = studio.fail(film, word)

    assert (failure.error_type, failure.error_code) == ("processing_error", "tool_missing")
    assert (failure.stage, failure.retryable) == ("validation", False)
    assert "install ffmpeg" in failure.error_message
    studio.film(film, word)


# -- writing ---------------------------------------------------------------------------------------

_NONSENSE = 'for word; do case "$word" in *.mp4) echo nonsense > "${word#file:}";; esac; done'
#: What goes wrong with an encoder, and the code that tells of it.
BROKEN_ENCODERS = {
    "it is killed": ("kill -KILL $$", "processing_failed"),
    "it crashes": ("kill -SEGV $$", "processing_failed"),
    "it hangs": ("kill -STOP $$", "processing_failed"),
    "it complains": ("echo no more >&2; exit 1", "processing_failed"),
    "it ends too soon": ("exit 0", "processing_failed"),
    "it swallows everything": ("cat > /dev/null; exit 0", "output_invalid"),
    "it writes nonsense": (f"cat > /dev/null; {_NONSENSE}; exit 0", "output_invalid"),
    # Five frames of 512 x 512.
    "it leaves frames out": (
        '{ head -c 1966080; cat > /dev/null; } | "$REAL" "$@"; exit 0',
        "output_invalid",
    ),
}


@pytest.mark.parametrize("kind", BROKEN_ENCODERS)
def test_an_encoder_that_fails_is_the_workers_fault_and_nothing_is_delivered(
    impatient: Studio, studio: Studio, stand_in: StandIn, face: Path, word: Path, kind: str
) -> None:
    script, code = BROKEN_ENCODERS[kind]

    with stand_in("ffmpeg", when(ENCODES, script)):
        failure = impatient.fail(face, word)

    assert (failure.error_type, failure.error_code) == ("processing_error", code)
    assert (failure.stage, failure.retryable) == ("postprocessing", True)
    assert nothing_left(impatient)
    studio.film(face, word)


# -- no room ---------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", f"{disk}"]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a disk")
    yield disk
    subprocess.run(["umount", f"{disk}"], check=True)


@pytest.mark.parametrize(("free_kb", "stage"), [(8, "preprocessing"), (120, "postprocessing")])
def test_a_full_disk_fails_the_job_it_has_no_room_for_and_nothing_stays_on_it(
    studio: Studio, small_disk: Path, face: Path, word: Path, free_kb: int, stage: str
) -> None:
    cramped = replace(studio, runtime=replace(studio.runtime, workspace=Workspaces(small_disk)))
    needed = face.stat().st_size + word.stat().st_size
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1024 * 1024 - needed - free_kb * 1024))

    failure = cramped.run(face, word, params={"crf": 0})

    assert isinstance(failure, Failure)
    assert failure.error_type == "processing_error"
    assert (failure.stage, failure.retryable) == (stage, True)
    assert list(small_disk.iterdir()) == [ballast]
    assert nothing_left(studio)
    ballast.unlink()
    cramped.film(face, word)
