"""The jobs of one Modal container, on fakes; and what its start does before a snapshot."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters.config import ConfigError
from adapters.log import open_log
from adapters.modal_class import Jobs, read, start
from handler import WorkerBroken
from handler.ports import Clip, Scene
from handler.progress import Tick
from handler.testing import FakeAvatar, FakeEngine, FakeWorkspace, MemoryWebhooks, fake_runtime

CALL_ID = "fc-01ABC"
ENV = {"MUSETALK_ENGINE": "preview"}
REPOSITORY = Path(__file__).parents[2]
#: Longer than anything here takes.
PATIENCE_SECONDS = 20

#: Reads the weights that it is given as a container does, and fails if anybody asks PyTorch what
#: GPUs there are: before a snapshot there is none, and that answer would stay.
WATCHED_READ = """
import sys, threading

QUESTIONS = {"is_available", "device_count", "current_device", "get_device_capability",
             "get_device_properties", "_lazy_init", "init"}
asked = set()

def watch(frame, event, _):
    code = frame.f_code
    if code.co_name in QUESTIONS and code.co_filename.endswith("torch/cuda/__init__.py"):
        asked.add(code.co_name)

threading.setprofile(watch)
sys.setprofile(watch)
from adapters.modal_class import read
engine = read({"MUSETALK_WEIGHTS_DIR": sys.argv[1], "DEVICE": "cpu"})
early = sorted(asked)
engine()
assert asked, "the other half asks, or this test sees nothing"
sys.exit(f"asked for {early}" if early else 0)
"""


@dataclass
class Container:
    """One container on fakes, and what is seen of it from outside."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    closings: int = 0
    can_close: bool = True
    log: io.StringIO = field(default_factory=io.StringIO)
    workspace: FakeWorkspace = field(default_factory=FakeWorkspace)
    webhooks: MemoryWebhooks = field(default_factory=MemoryWebhooks)

    def __post_init__(self) -> None:
        runtime = fake_runtime(engine=self.engine, workspace=self.workspace, notify=self.webhooks)
        self.jobs = Jobs(runtime, open_log(self.log), self.close)

    def close(self) -> None:
        self.closings += 1
        if not self.can_close:
            raise ConnectionError

    @property
    def logged(self) -> list[str]:
        return [json.loads(line)["message"] for line in self.log.getvalue().splitlines()]


class SlowEngine(FakeEngine):
    """Films for as long as anybody has patience."""

    def animate(self, avatar: FakeAvatar, scene: Scene, target: Path, tick: Tick) -> Clip:
        ends = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < ends:
            tick(0.5)
        return super().animate(avatar, scene, target, tick)


def test_a_job_is_known_by_its_own_id_or_else_by_that_of_its_call(job: dict[str, Any]) -> None:
    jobs = Container().jobs

    own = jobs.handle(job, CALL_ID)
    del job["musetalk_job_id"]
    given = jobs.handle(job, CALL_ID)

    assert own["musetalk_job_id"] == "job-123"
    assert given["musetalk_job_id"] == CALL_ID


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"video_url": "https://example.com/gone.mp4"}, "download_failed"),
        ({"video_url": None}, "invalid_job"),
    ],
)
def test_a_failed_job_is_returned_and_not_raised(
    job: dict[str, Any], change: dict[str, Any], code: str
) -> None:
    container = Container()

    result = container.jobs.handle(job | change, CALL_ID)

    assert (result["status"], result["error_code"]) == ("failed", code)
    assert container.logged == ["job failed"]


def test_what_is_no_job_at_all_is_a_failure_like_any_other() -> None:
    assert Container().jobs.handle(["job"], CALL_ID)["error_code"] == "invalid_job"


def test_a_container_whose_gpu_broke_answers_and_is_closed_to_new_jobs(
    job: dict[str, Any],
) -> None:
    container = Container(FakeEngine(fault=WorkerBroken("The GPU is lost.")))

    result = container.jobs.handle(job, CALL_ID)

    assert (result["error_code"], result["retryable"]) == ("worker_broken", True)
    assert container.closings == 1


def test_a_broken_container_that_cannot_be_closed_still_answers_but_begins_no_other_job(
    job: dict[str, Any],
) -> None:
    container = Container(FakeEngine(fault=WorkerBroken("The GPU is lost.")), can_close=False)

    result = container.jobs.handle(job, CALL_ID)
    with pytest.raises(RuntimeError, match="was not begun"):
        container.jobs.handle(job, CALL_ID)

    assert result["error_code"] == "worker_broken"
    assert len(container.workspace.lent) == 1
    assert container.closings == 2


def test_a_job_that_is_interrupted_leaves_nothing_and_tells_nobody(job: dict[str, Any]) -> None:
    # What Modal raises in a job whose machine it takes away, only to run it elsewhere.
    container = Container(FakeEngine(fault=KeyboardInterrupt()))  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        container.jobs.handle(job | {"webhook_url": "https://example.com/hook"}, CALL_ID)

    assert not container.workspace.lent[0].exists()
    assert container.webhooks.delivered == []
    assert container.logged == ["job interrupted"]


def test_events_are_progress_that_never_falls_its_end_and_the_result(job: dict[str, Any]) -> None:
    *progress, result = Container().jobs.events(job, CALL_ID)

    fractions = [event["progress"] for event in progress]
    assert fractions == sorted(fractions)
    assert progress[-1] == {"status": "running", "progress": 1.0, "phase": "completed"}
    assert result["status"] == "success"


def test_a_job_whose_events_nobody_takes_any_more_ends_without_a_word(job: dict[str, Any]) -> None:
    container = Container(SlowEngine())
    events = container.jobs.events(job | {"webhook_url": "https://example.com/hook"}, CALL_ID)

    first = next(events)
    events.close()

    assert first["phase"] == "inferring"
    assert not container.workspace.lent[0].exists()
    assert container.webhooks.delivered == []
    assert container.logged == ["job interrupted"]


def test_a_container_is_who_it_is_after_its_snapshot(tmp_path: Path) -> None:
    place = {"AVATAR_CACHE_DIR": str(tmp_path)}
    engine = read({**ENV, **place, "MODAL_TASK_ID": "ta-snapshot"})
    jobs = start({**ENV, **place, "MODAL_TASK_ID": "ta-restored"}, engine, lambda: None)

    worker = jobs.handle({}, CALL_ID)["worker"]

    assert (worker["worker_id"], worker["provider"]) == ("ta-restored", "modal")


def test_a_setting_that_is_wrong_stops_the_start_and_is_named() -> None:
    with pytest.raises(ConfigError, match="BATCH_SIZE"):
        read({**ENV, "BATCH_SIZE": "many"})


def test_what_went_to_the_gpu_before_a_snapshot_is_not_sent_there_again() -> None:
    engine = read(ENV, to_gpu=True)

    assert engine() is engine()


def test_the_gpu_is_sought_after_the_snapshot_unless_it_is_in_the_snapshot(weights: Path) -> None:
    env = {"MUSETALK_WEIGHTS_DIR": str(weights), "DEVICE": "cuda:9"}

    engine = read(env)

    with pytest.raises(ConfigError, match="cuda:9"):
        engine()
    with pytest.raises(ConfigError, match="cuda:9"):
        read(env, to_gpu=True)


def test_nothing_before_the_snapshot_asks_what_gpus_there_are(weights: Path) -> None:
    words = [sys.executable, "-c", WATCHED_READ, str(weights)]

    watched = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert watched.returncode == 0, watched.stderr
