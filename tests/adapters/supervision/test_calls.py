"""Jobs of a supervised engine that are taken back, that end too late, or that wait."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from handler import Progress
from handler.ports import Fetched, Scene
from handler.testing import FAKE_AUDIO, FAKE_VIDEO
from tests import clips
from tests.supervised_stage import HURRIED, PATIENT_SECONDS, OpenStage, Stage, cancelling


def test_a_job_that_is_taken_back_ends_and_the_engine_stays(stage: Stage) -> None:
    before = stage.engine.pid

    failure = stage.fail(cancelling, until="/never")

    assert failure.error_type == "cancelled"
    assert stage.does_a_good_job()
    assert stage.engine.pid == before


@pytest.mark.parametrize("fate", ["hang", "deaf"])
def test_a_job_that_is_taken_back_ends_even_if_its_engine_does_not(
    open_stage: OpenStage, fate: str
) -> None:
    stage = open_stage(patience=replace(HURRIED, stall_seconds=PATIENT_SECONDS))
    before, began = stage.engine.pid, time.monotonic()

    failure = stage.fail(cancelling, fate=fate)

    assert failure.error_type == "cancelled"
    assert time.monotonic() - began < 5
    assert stage.does_a_good_job()
    assert stage.engine.pid != before


def test_a_deadline_holds_though_the_engine_is_silent(open_stage: OpenStage) -> None:
    stage = open_stage(patience=replace(HURRIED, stall_seconds=PATIENT_SECONDS))
    began = time.monotonic()

    failure = stage.fail(deadline_seconds=1, fate="hang")

    assert failure.error_code == "deadline_exceeded"
    assert time.monotonic() - began < 5
    assert stage.does_a_good_job()


class Bell:
    """Rings when a job has come to its second half."""

    def __init__(self) -> None:
        self.rung = threading.Event()

    def __call__(self, progress: Progress) -> None:
        if progress.fraction > 0.35:
            self.rung.set()


@pytest.mark.parametrize(("fate", "status"), [("live", "success"), ("segfault", "failed")])
def test_a_job_waits_for_its_turn_whatever_becomes_of_the_one_before(
    stage: Stage, tmp_path: Path, fate: str, status: str
) -> None:
    bell, waited = Bell(), threading.Event()

    def wait(progress: Progress) -> None:
        if progress.phase == "inferring":
            waited.set()

    with ThreadPoolExecutor(2) as doors:
        first = doors.submit(stage.run, bell, until=f"{tmp_path}/go", fate=fate)
        assert bell.rung.wait(PATIENT_SECONDS)
        second = doors.submit(stage.run, wait)
        # Told while it waits, so it could be taken back.
        assert waited.wait(PATIENT_SECONDS)
        assert not second.done()
        (tmp_path / "go").touch()

        assert first.result(PATIENT_SECONDS).status == status
        assert second.result(PATIENT_SECONDS).status == "success"


def test_a_face_that_went_down_with_another_jobs_engine_is_made_ready_again(
    stage: Stage, tmp_path: Path
) -> None:
    file = Fetched(tmp_path / "file", 1, "0")
    scene = Scene(face=file, video=FAKE_VIDEO, voice=file, audio=FAKE_AUDIO, job=clips.job())
    avatar = stage.engine.prepare(scene, lambda _: None)
    stage.fail(fate="segfault")

    clip = stage.engine.animate(avatar, scene, tmp_path / "clip", lambda _: None)

    assert clip.path.read_text() == str(clip.frames)
