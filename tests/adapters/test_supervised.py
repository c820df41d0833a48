"""An engine in a process of its own: whatever befalls it costs one job, and the next is done."""

from __future__ import annotations

import gc
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapters.bootstrap import bootstrap
from adapters.config import Config, ConfigError
from adapters.supervised import SupervisedEngine
from adapters.supervision.loaded import Start
from adapters.supervision.patience import Patience
from handler import Failure, Progress, Success, WorkerBroken, handle
from handler.errors import Cancelled, EngineDied, EngineStalled
from handler.ports import Fetched, Scene
from handler.progress import Report, ignore
from handler.testing import FAKE_AUDIO, FAKE_FILES, FAKE_VIDEO, FakeWorkspace, fake_runtime
from tests import clips, doomed_engine
from tests.conftest import TESTS, Studio, open_studio

PATIENT_SECONDS = 30
#: Nobody wants to wait for what is to take too long; what is to be done takes milliseconds.
HURRIED = Patience(
    stall_seconds=1.0, stop_seconds=0.5, check_seconds=1.0, reap_seconds=5.0, memory_seconds=0.0
)


class Stage:
    """A worker with a supervised engine, and a look behind the scenes."""

    def __init__(self, start: Start, patience: Patience) -> None:
        self.engine = SupervisedEngine(start, patience)
        self.workspace = FakeWorkspace()
        self.runtime = fake_runtime(
            engine=self.engine, workspace=self.workspace, clock=time.monotonic
        )

    def run(
        self, report: Report = ignore, deadline_seconds: float | None = None, **told: str
    ) -> Success | Failure:
        """Do a job with such a fate."""
        video, audio = FAKE_FILES
        raw = {"video_url": video, "audio_url": audio, "metadata": told}
        return handle(raw | {"deadline_seconds": deadline_seconds}, self.runtime, report)

    def fail(self, report: Report = ignore, **told: Any) -> Failure:
        """Do a job that must fail."""
        result = self.run(report, **told)
        assert isinstance(result, Failure), result
        return result

    def does_a_good_job(self) -> bool:
        """Tell whether the worker has tidied up and is fit for the next job."""
        assert not any(place.exists() for place in self.workspace.lent)
        return isinstance(self.run(), Success)


#: A worker whose engine never answers.
HANGING_WORKER = """
from functools import partial
from adapters.supervised import SupervisedEngine
from tests.doomed_engine import start_badly
SupervisedEngine(partial(start_badly, "hang"))
"""

OpenStage = Callable[..., Stage]


def wait_until_dead(pid: int) -> None:
    """Wait for the end of a process, which is left for the worker to learn of."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@contextmanager
def season() -> Iterator[OpenStage]:
    """Lend what opens workers; once they are closed, nothing of them is left."""
    before = set(psutil.Process().children())
    stages: list[Stage] = []

    def opened(start: Start = doomed_engine.start, patience: Patience = HURRIED) -> Stage:
        stages.append(Stage(start, patience))
        return stages[-1]

    yield opened

    for stage in stages:
        stage.engine.close()
        assert not any(place.exists() for place in stage.workspace.lent)
    assert set(psutil.Process().children()) == before


@pytest.fixture
def open_stage() -> Iterator[OpenStage]:
    """Return what opens workers of their own."""
    with season() as opened:
        yield opened


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Return a worker that every test leaves fit for the next."""
    with season() as opened:
        yield opened()


# -- what befalls an engine ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fate", "details"),
    [
        ("segfault", {"signal": "SIGSEGV"}),
        ("killed", {"signal": "SIGKILL"}),
        ("exit", {"exit_code": 3}),
        ("exit at once", {"exit_code": 4}),
    ],
)
def test_an_engine_that_dies_costs_one_job_and_says_how_it_died(
    stage: Stage, fate: str, details: dict[str, Any]
) -> None:
    before = stage.engine.pid

    failure = stage.fail(fate=fate)

    assert (failure.error_type, failure.error_code) == ("processing_error", "engine_died")
    assert (failure.stage, failure.retryable) == ("inference", True)
    assert failure.details == details
    assert stage.does_a_good_job()
    assert stage.engine.pid != before


def test_an_engine_that_was_killed_hints_at_the_memory_of_the_machine(stage: Stage) -> None:
    assert "memory" in stage.fail(fate="killed").error_message


def test_an_engine_may_die_while_it_reads_a_face_too(stage: Stage) -> None:
    failure = stage.fail(in_prepare="segfault")

    assert (failure.error_code, failure.stage) == ("engine_died", "preprocessing")
    assert stage.does_a_good_job()


@pytest.mark.parametrize("fate", ["hang", "wedged"])
def test_an_engine_that_hangs_is_killed_and_replaced(stage: Stage, fate: str) -> None:
    before, began = stage.engine.pid, time.monotonic()

    failure = stage.fail(fate=fate)

    assert time.monotonic() - began < HURRIED.stall_seconds + 10
    assert (failure.error_type, failure.error_code) == ("processing_error", "engine_stalled")
    assert (failure.stage, failure.retryable) == ("inference", True)
    assert stage.does_a_good_job()
    assert stage.engine.pid != before
    assert not psutil.pid_exists(before)


def test_an_engine_whose_gpu_is_lost_is_replaced(stage: Stage) -> None:
    before = stage.engine.pid

    failure = stage.fail(fate="lost gpu")

    assert (failure.error_type, failure.error_code) == ("processing_error", "engine_broken")
    assert (failure.stage, failure.retryable) == ("inference", True)
    assert "device-side assert" in failure.error_message
    assert stage.does_a_good_job()
    assert stage.engine.pid != before


@pytest.mark.parametrize("fate", ["out of host memory", "out of gpu memory"])
def test_a_job_that_does_not_fit_leaves_the_engine_where_it_is(stage: Stage, fate: str) -> None:
    before = stage.engine.pid

    failure = stage.fail(fate=fate)

    assert (failure.error_type, failure.error_code) == ("processing_error", "out_of_memory")
    assert (failure.stage, failure.retryable) == ("inference", True)
    assert failure.details == {"is_oom": True}
    assert stage.does_a_good_job()
    assert stage.engine.pid == before


@pytest.mark.parametrize("in_check", ["lost gpu", "bug", "hang", "segfault"])
def test_an_engine_that_does_not_recover_from_an_error_is_replaced(
    stage: Stage, in_check: str
) -> None:
    before = stage.engine.pid

    failure = stage.fail(fate="bug", in_check=in_check)

    assert failure.error_type == "unknown_error"
    assert stage.does_a_good_job()
    assert stage.engine.pid != before


def test_media_at_fault_put_no_engine_to_the_test(stage: Stage) -> None:
    before = stage.engine.pid

    failure = stage.fail(fate="faceless", in_check="segfault")

    assert failure.error_type == "media_error"
    assert stage.does_a_good_job()
    assert stage.engine.pid == before


def test_an_engine_that_died_between_two_jobs_costs_none(stage: Stage) -> None:
    stage.run()
    os.kill(stage.engine.pid, signal.SIGKILL)
    wait_until_dead(stage.engine.pid)

    assert stage.does_a_good_job()


# -- what crosses over -----------------------------------------------------------------------------


def test_an_error_comes_out_as_it_went_in(stage: Stage) -> None:
    faceless, final = stage.fail(fate="faceless"), stage.fail(fate="final")

    assert (faceless.error_code, faceless.error_message) == ("face_not_found", "No face anywhere.")
    assert (faceless.stage, faceless.details) == ("validation", {"frames": 7})
    assert (final.error_code, final.retryable) == ("store_failed", False)
    assert "object object" in str(final.details["strange"])


def test_a_bug_is_told_by_its_name_and_where_it_is(stage: Stage) -> None:
    failure = stage.fail(fate="bug")

    assert (failure.error_type, failure.retryable) == ("unknown_error", False)
    assert failure.error_message == "KeyError: 'mouth'"
    assert "in _bug" in str(failure.stack_trace)


def test_progress_rises_from_the_first_half_to_the_second(stage: Stage) -> None:
    told: list[Progress] = []

    stage.run(told.append)

    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert {progress.phase for progress in told} >= {"downloading", "inferring", "completed"}


def faceless(progress: Progress) -> None:
    """Take the job back when its face is ready."""
    if progress.fraction > 0.3:
        raise Cancelled("taken back")


@pytest.mark.parametrize("report", [ignore, faceless])
def test_a_face_is_let_go_with_its_job(stage: Stage, report: Report) -> None:
    def others() -> str:
        result = stage.run()
        assert isinstance(result, Success)
        return result.warnings[0]

    end = time.monotonic() + PATIENT_SECONDS
    stage.fail(report, fate="bug")
    while others() != "0 others":
        assert time.monotonic() < end


# -- jobs that are taken back ----------------------------------------------------------------------


def cancelling(progress: Progress) -> None:
    """Take the job back as soon as its second half has begun."""
    if progress.fraction > 0.35:
        raise Cancelled("taken back")


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


# -- two jobs at once ------------------------------------------------------------------------------


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


# -- when another process would not help -----------------------------------------------------------


def test_the_third_replacement_within_ten_minutes_is_one_too_many(open_stage: OpenStage) -> None:
    stage = open_stage(patience=replace(HURRIED, memory_seconds=600))
    for _ in range(2):
        assert stage.fail(fate="killed").error_code == "engine_died"

    with pytest.raises(WorkerBroken, match="3 times within 10 minutes") as caught:
        stage.run(fate="killed")

    assert caught.value.failure.retryable
    assert "SIGKILL" in str(caught.value.failure.stack_trace)
    with pytest.raises(WorkerBroken):
        stage.run()


def test_an_engine_that_cannot_be_loaded_again_breaks_the_worker(
    open_stage: OpenStage, tmp_path: Path
) -> None:
    stage = open_stage(partial(doomed_engine.start_only_once, tmp_path / "mark"))
    assert stage.fail(fate="exit").error_code == "engine_died"

    with pytest.raises(WorkerBroken, match="could not be loaded again: FileExistsError"):
        stage.run()


def test_a_process_that_cannot_be_ended_breaks_the_worker_once_its_job_is_answered(
    open_stage: OpenStage,
) -> None:
    # It ends, but not at once: there is much to tidy up.
    stage = open_stage(patience=replace(HURRIED, reap_seconds=0.0))
    hung = stage.engine.pid

    with pytest.raises(WorkerBroken, match="cannot be ended") as caught:
        stage.run(fate="heavy hang")

    assert caught.value.failure.error_type == "processing_error"
    with pytest.raises(WorkerBroken):
        stage.run()
    wait_until_dead(hung)


# -- starting and ending ---------------------------------------------------------------------------


def test_a_wrong_setting_stops_the_start_with_its_own_words(open_stage: OpenStage) -> None:
    with pytest.raises(ConfigError, match=re.escape("MUSETALK_WEIGHTS_DIR=/nowhere is empty.")):
        open_stage(doomed_engine.start_with_a_wrong_setting)


def test_an_engine_that_dies_while_it_is_loaded_stops_the_start(open_stage: OpenStage) -> None:
    with pytest.raises(EngineDied, match="SIGSEGV"):
        open_stage(partial(doomed_engine.start_badly, "segfault"))


def test_an_engine_that_is_never_loaded_stops_the_start(open_stage: OpenStage) -> None:
    with pytest.raises(EngineStalled):
        open_stage(partial(doomed_engine.start_badly, "hang"), replace(HURRIED, start_seconds=0.5))


def test_an_engine_that_nobody_remembers_is_ended(open_stage: OpenStage) -> None:
    engine = SupervisedEngine(doomed_engine.start)
    process = psutil.Process(engine.pid)

    del engine
    gc.collect()

    assert not process.is_running()


def test_a_signal_to_stop_is_left_to_the_worker(stage: Stage) -> None:
    before = stage.engine.pid
    assert os.getpgid(before) != os.getpgrp()

    result = stage.run(fate="told to stop")

    assert isinstance(result, Success)
    assert stage.engine.pid == before


def test_the_engines_process_knows_no_secrets(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [field.alias for field in Config.model_fields.values() if field.alias]
    secret = [name for name in names if re.search("KEY|SECRET|TOKEN", name)]
    for name in (*secret, "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "s3cr3t")

    stage = open_stage()

    assert len(secret) > 4
    known = psutil.Process(stage.engine.pid).environ()
    assert "s3cr3t" not in known.values()
    assert known["PATH"] == os.environ["PATH"]


def test_an_engines_settings_hold_no_secrets() -> None:
    env = {"B2_KEY_ID": "s3cr3t", "B2_APP_KEY": "s3cr3t", "B2_BUCKET_NAME": "videos"}
    env |= {"WEBHOOK_SECRET": "s3cr3t", "WORKER_TOKEN": "s3cr3t", "INTERNAL_API_KEY": "s3cr3t"}
    config = Config.from_env({**env, "BATCH_SIZE": "3"})

    told = config.without_secrets()

    assert b"s3cr3t" in pickle.dumps(config)
    assert b"s3cr3t" not in pickle.dumps(told)
    assert told.batch_size == 3


# -- a real engine ---------------------------------------------------------------------------------


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


def test_when_the_worker_is_killed_an_engine_that_hangs_goes_with_it() -> None:
    argv = [sys.executable, "-c", HANGING_WORKER]
    with subprocess.Popen(argv, cwd=TESTS.parent, stderr=subprocess.PIPE) as worker:
        assert worker.stderr
        assert worker.stderr.readline() == b"hang\n"
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


# -- who has one -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "by_default", "has_one"),
    [("auto", True, True), ("", True, True), ("auto", False, False), ("false", True, False)],
)
def test_the_door_decides_unless_the_setting_does(
    tmp_path: Path, setting: str, *, by_default: bool, has_one: bool
) -> None:
    env = {"MUSETALK_ENGINE": "preview", "AVATAR_CACHE_DIR": f"{tmp_path}", "SUPERVISED": setting}

    engine = bootstrap(Config.from_env(env), supervised=by_default).engine

    assert isinstance(engine, SupervisedEngine) is has_one


def test_a_setting_that_is_neither_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="SUPERVISED"):
        Config.from_env({"SUPERVISED": "perhaps"})
