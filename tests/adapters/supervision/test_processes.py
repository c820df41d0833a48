"""The processes of a supervised engine: begun, replaced, ended, and told of."""

from __future__ import annotations

import gc
import os
import pickle
import re
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from adapters.bootstrap import bootstrap
from adapters.config import Config, ConfigError
from adapters.supervised import SupervisedEngine
from handler import Success, WorkerBroken
from handler.errors import EngineDied, EngineStalled
from tests import doomed_engine
from tests.supervised_stage import HURRIED, OpenStage, Stage, cancelling, wait_until_dead


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


def test_an_operator_hears_of_each_replacement_and_why(open_stage: OpenStage) -> None:
    stage = open_stage()

    stage.fail(fate="exit")
    stage.fail(fate="bug", in_check="bug")
    stage.fail(cancelling, fate="deaf")
    stage.run()
    os.kill(stage.engine.pid, signal.SIGKILL)
    wait_until_dead(stage.engine.pid)
    stage.run()

    exited, unsound, deaf, killed = stage.told
    assert exited == "EngineDied: The engine's process ended with exit code 3."
    assert "KeyError: 'mouth'" in unsound
    assert deaf.startswith("EngineStalled: The engine did not let go")
    assert "SIGKILL" in killed


def test_nobody_hears_of_jobs_that_leave_the_engine_where_it_is(stage: Stage) -> None:
    before = len(stage.told)

    for fate in ("faceless", "bug", "out of gpu memory"):
        stage.fail(fate=fate)

    assert len(stage.told) == before


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


@pytest.mark.parametrize(
    ("setting", "by_default", "has_one"),
    [("auto", True, True), ("", True, True), ("auto", False, False), ("false", True, False)],
)
def test_the_door_decides_unless_the_setting_does(
    tmp_path: Path, setting: str, *, by_default: bool, has_one: bool
) -> None:
    env = {"MUSETALK_ENGINE": "preview", "AVATAR_CACHE_DIR": f"{tmp_path}", "SUPERVISED": setting}

    engine = bootstrap(Config.from_env(env, supervised=by_default)).engine

    assert isinstance(engine, SupervisedEngine) is has_one


def test_a_setting_that_is_neither_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="SUPERVISED"):
        Config.from_env({"SUPERVISED": "perhaps"})
