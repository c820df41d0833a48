"""Cases 29, 30 and 38: programs that fail a worker, and disks that have no room for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import clips
from tests.adapters.transfer.loopback import body, serving
from tests.conftest import ASSETS
from tests.drive_http import WORKER
from tests.faults.aftermath import Watched, signed, verdict, watched_process
from tests.faults.tools import ENCODES, Tools

#: How long a program may be silent: short, but longer than it takes to start on a busy machine.
STALL_SECONDS = "3"
#: What no file of a worker with a full disk may grow beyond.
ROOM_BYTES = 64 * 1024

SENDERS_FAULT = ("media_error", False, "validation")
TOOL_MISSING = ("processing_error", False, "validation")
ENCODER_FAULT = ("processing_error", True, "postprocessing")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return Tools.install(tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, good: Mapping[str, str], tools: Tools
) -> Iterator[Watched]:
    """Start a worker on a disk that is all but full: none of its own files can grow large."""
    place = tmp_path_factory.mktemp("tools")
    cramped = (f"{shutil.which('prlimit')}", f"--fsize={ROOM_BYTES}:", f"{WORKER}", "serve")
    env = {"PATH": f"{tools.folder}", "STALL_SEC": STALL_SECONDS}
    with watched_process(place, good, *cramped, **env) as worker:
        yield worker


def delivered(worker: Watched) -> set[str]:
    """Return what has been stored."""
    return {path.name for path in (worker.scratch.parent / "out").glob("*")}


# -- 29: what reads a stranger's file --------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("kill -STOP $$", id="29 hangs"),
        pytest.param("kill -SEGV $$", id="29 crashes"),
    ],
)
def test_a_prober_that_a_file_brings_down_is_the_files_fault(
    worker: Watched, tools: Tools, script: str
) -> None:
    with tools.ordered("ffprobe", script):
        failure = worker.fail()

    assert verdict(failure) == SENDERS_FAULT


@pytest.mark.parametrize(
    "name", [pytest.param(name, id=f"29 {name}") for name in ("ffmpeg", "ffprobe")]
)
def test_a_program_that_is_missing_is_the_workers_fault(
    worker: Watched, tools: Tools, name: str
) -> None:
    with tools.without(name):
        failure = worker.fail()

    assert verdict(failure) == TOOL_MISSING
    assert "install ffmpeg" in failure.error_message


# -- 30: no room -----------------------------------------------------------------------------------


def test_30_a_download_that_the_disk_has_no_room_for_may_be_tried_elsewhere(
    worker: Watched,
) -> None:
    with serving(body(bytes(2 * ROOM_BYTES))) as site:
        failure = worker.fail(video_url=signed(site.url))

    assert verdict(failure) == ("processing_error", True, "download")


def test_30_a_video_that_the_disk_has_no_room_for_may_be_made_elsewhere(
    worker: Watched, tools: Tools
) -> None:
    with tools.ordered("ffmpeg", f'case "$*" in {ENCODES}) ulimit -f 4;; esac'):
        failure = worker.fail()

    assert verdict(failure) == ENCODER_FAULT


def test_30_a_video_that_the_store_has_no_room_for_may_be_stored_elsewhere(
    worker: Watched, tmp_path: Path
) -> None:
    film, before = tmp_path / "film.mp4", delivered(worker)
    words = "-t 0.5 -vf scale=256:256 -an -c:v libx264 -preset ultrafast"
    clips.run_ffmpeg("-i", f"{ASSETS / 'face.mp4'}", *words.split(), f"{film}")

    with serving(body(film.read_bytes())) as site:
        # Without loss it is twice as large as what there is room for.
        failure = worker.fail(video_url=signed(site.url), params={"crf": 0})

    assert verdict(failure) == ("processing_error", True, "upload")
    assert delivered(worker) == before


# -- 38: what writes the video ---------------------------------------------------------------------

#: Write something else where the video should be.
_NONSENSE = """
cat > /dev/null
for word; do case "$word" in file:*output.mp4) echo nonsense > "${word#file:}"; exit 0;; esac; done
"""


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param("kill -SEGV $$", "processing_failed", id="38 it dies"),
        pytest.param(
            # Five frames of 128 x 128, of ten.
            '{ head -c 122880; cat > /dev/null; } | "$REAL" "$@"; exit 0',
            "output_invalid",
            id="38 it leaves frames out",
        ),
        pytest.param(
            _NONSENSE,
            "output_invalid",
            id="38 it writes nonsense",
        ),
    ],
)
def test_a_video_that_is_not_what_was_asked_for_is_not_delivered(
    worker: Watched, tools: Tools, script: str, code: str
) -> None:
    before = delivered(worker)

    with tools.ordered("ffmpeg", f'case "$*" in {ENCODES}) {script};; esac'):
        failure = worker.fail()

    assert verdict(failure) == ENCODER_FAULT
    assert failure.error_code == code
    assert delivered(worker) == before
