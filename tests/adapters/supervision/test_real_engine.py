"""A supervised engine that films, with its ffmpeg, and what is left of both: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from adapters.supervised import SupervisedEngine
from handler import Failure
from tests import clips
from tests.adapters.transfer.loopback import body, serving
from tests.conftest import TESTS, Studio, open_studio
from tests.doors import ON_LOOPBACK
from tests.drive_http import WORKER, worker_process
from tests.drive_poll_loop import child
from tests.orchestrator import FakeOrchestrator
from tests.supervised_stage import PATIENT_SECONDS

#: A worker whose engine never answers.
HANGING_WORKER = """
import sys
from functools import partial
from adapters.supervised import SupervisedEngine
from tests.doomed_engine import start_badly
SupervisedEngine(partial(start_badly, sys.argv[1]))
"""


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Return a worker whose preview engine has a process of its own."""
    studio = open_studio(tmp_path_factory.mktemp("supervised"), SUPERVISED="true")
    assert isinstance(studio.runtime.engine, SupervisedEngine)
    with closing(studio.runtime.engine):
        yield studio


def test_an_engine_makes_the_same_video_wherever_it_lives(
    supervised: Studio, studio: Studio, face: Path, word: Path
) -> None:
    ours, theirs = (each.film(face, word, musetalk_job_id="a") for each in (studio, supervised))
    again, _ = supervised.film(face, word, musetalk_job_id="b")

    assert theirs[1].read_bytes() == ours[1].read_bytes()
    assert theirs[0].worker == ours[0].worker.model_copy(
        update={"cold_start_sec": theirs[0].worker.cold_start_sec}
    )
    assert theirs[0].metrics.engine_times.keys() == ours[0].metrics.engine_times.keys()
    assert (theirs[0].metrics.avatar_cache, again.metrics.avatar_cache) == ("miss", "hit")


def test_a_face_that_is_none_is_refused_by_name_from_afar(
    supervised: Studio, word: Path, tmp_path: Path
) -> None:
    night = tmp_path / "night.mp4"
    clips.run_ffmpeg("-f", "lavfi", "-i", "color=black:duration=0.2", f"{night}")

    failure = supervised.run(night, word)

    assert isinstance(failure, Failure)
    assert failure.error_code == "face_not_found"


def filming(worker: psutil.Process) -> set[psutil.Process]:
    """Wait until an engine's process has its ffmpeg; return them."""
    end = time.monotonic() + PATIENT_SECONDS
    while time.monotonic() < end:
        for engine in worker.children():
            with suppress(psutil.NoSuchProcess):
                if engine.name().startswith("python") and (tools := engine.children()):
                    return {engine, *tools}
    raise AssertionError("There was never an ffmpeg.")


def test_when_the_worker_is_killed_its_engine_and_its_ffmpeg_are_gone_within_seconds(
    face: Path, voice: Path, tmp_path: Path
) -> None:
    words = f"run --engine preview --video {face} --audio {voice} --out {tmp_path}/out.mp4"
    env = {**os.environ, "SUPERVISED": "true", "AVATAR_CACHE_DIR": f"{tmp_path}/avatars"}
    main = "from adapters.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", main, *words.split()], env=env | {"TMPDIR": f"{tmp_path}"}
    ) as worker:
        left = filming(psutil.Process(worker.pid))

        worker.send_signal(signal.SIGKILL)

        assert psutil.wait_procs(left, timeout=5)[1] == []


@pytest.mark.parametrize("fate", ["hang", "wedged"])
def test_when_the_worker_is_killed_an_engine_that_hangs_goes_with_it(fate: str) -> None:
    argv = [sys.executable, "-c", HANGING_WORKER, fate]
    with subprocess.Popen(argv, cwd=TESTS.parent, stderr=subprocess.PIPE) as worker:
        assert worker.stderr
        assert worker.stderr.readline() == f"{fate}\n".encode()
        left = psutil.Process(worker.pid).children()

        worker.send_signal(signal.SIGKILL)

        assert len(left) == 1
        assert psutil.wait_procs(left, timeout=5)[1] == []


def test_when_the_engine_is_killed_its_ffmpeg_is_gone_within_seconds(
    supervised: Studio, face: Path, voice: Path
) -> None:
    with ThreadPoolExecutor(1) as door:
        job = door.submit(supervised.run, face, voice)
        left = filming(psutil.Process())
        os.kill(supervised.runtime.engine.pid, signal.SIGKILL)

        failure = job.result(PATIENT_SECONDS)
    assert isinstance(failure, Failure)
    assert failure.error_code == "engine_died"
    assert psutil.wait_procs(left, timeout=5)[1] == []


# -- a worker and its engine -----------------------------------------------------------------------


@pytest.fixture
def job(face: Path, voice: Path) -> Iterator[dict[str, str]]:
    """Serve a job that takes a moment."""
    with serving(body(face.read_bytes())) as video, serving(body(voice.read_bytes())) as audio:
        urls = {"video_url": f"{video.url}/face.mp4", "audio_url": f"{audio.url}/voice.wav"}
        yield {"musetalk_job_id": "job-7", **urls}


def settings(place: Path) -> dict[str, str]:
    """Return what makes a worker of its own, with no time to lose when it is told to stop."""
    places = {"OUTPUT_DIR": f"{place}/out", "AVATAR_CACHE_DIR": f"{place}/avatars"}
    return {**ON_LOOPBACK, **places, "DRAIN_SEC": "0.1"}


def halt(worker: subprocess.Popen[str]) -> set[psutil.Process]:
    """Have the engine stand still in the middle of a job; return it and its ffmpeg."""
    there = filming(psutil.Process(worker.pid))
    for process in there:
        # Only the engine: its ffmpeg ends by itself, as it does in earnest.
        if process.ppid() == worker.pid:
            process.suspend()
    return there


def test_an_engine_that_is_killed_costs_the_job_in_hand_and_leaves_a_line_of_the_log(
    job: dict[str, str], tmp_path: Path
) -> None:
    with worker_process(**settings(tmp_path)) as worker, ThreadPoolExecutor(1) as caller:
        started = worker.await_log("ready")
        answer = caller.submit(worker.driver.generate, job)
        for process in filming(psutil.Process(worker.process.pid)):
            process.kill()
        lost = answer.result()
        line = worker.await_log("engine replaced")
        after = worker.driver.generate(job)

    assert (started["engine"], started["supervised"]) == ("preview", True)
    assert started["storage"] == f"directory {tmp_path}/out"
    assert (lost.status, lost.body["error_code"]) == (500, "engine_died")
    assert (line["level"], "SIGKILL" in line["reason"]) == ("warning", True)
    assert after.status == 200


def test_a_posted_job_whose_engine_stands_still_is_answered_before_the_worker_ends(
    job: dict[str, str], tmp_path: Path
) -> None:
    with worker_process(**settings(tmp_path)) as worker, ThreadPoolExecutor(1) as caller:
        worker.await_log("ready")
        answer = caller.submit(worker.driver.generate, job)
        left = halt(worker.process)

        worker.process.send_signal(signal.SIGTERM)

        assert answer.result().body["error_code"] == "worker_unavailable"
        assert worker.exit_code() == 0
    assert psutil.wait_procs(left, timeout=5)[1] == []


def test_a_claimed_job_whose_engine_stands_still_is_given_back_before_the_worker_ends(
    job: dict[str, str], tmp_path: Path
) -> None:
    with FakeOrchestrator().serving() as orchestrator:
        name = orchestrator.submit(job)
        with child(orchestrator, tmp_path, str(WORKER), "local", **settings(tmp_path)) as worker:
            worker.await_log("started")
            left = halt(worker.process)

            worker.stop()

            assert worker.exit_code() == 0
        failure = json.loads(orchestrator.report(name)["error"])
    assert (failure["stage"], failure["retryable"]) == ("preprocessing", True)
    assert psutil.wait_procs(left, timeout=5)[1] == []
