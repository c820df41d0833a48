"""A running worker leads back to exactly what it runs, wherever it speaks of itself."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from adapters import __version__
from adapters.bootstrap import bootstrap, web_fetch
from adapters.config import Config, ConfigError
from adapters.doctor import examine
from adapters.gpu import PyTorch
from adapters.identity import read_record
from adapters.transfer.local import LocalFetch
from handler import Failure, Runtime, Success, handle
from handler.result import CONTRACT_VERSION, Worker
from inference.parts import Parts
from inference.preview import preview_parts
from tests.build_scripts import ROOT, run_script
from tests.conftest import open_musetalk
from tests.drive_http import open_door
from tests.drive_poll_loop import PollLoopDriver

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = f"sha256:{'ab' * 32}"
LOCK = ROOT / "build" / "image.lock"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Return the record that a build leaves in its image."""
    path, weights = tmp_path / "build.json", tmp_path / "weights"
    weights.mkdir()
    facts = ("--lock", f"{LOCK}", "--weights", f"{weights}", "--version", __version__)
    done = run_script(
        "build_record", f"{path}", *facts, "--git-commit", COMMIT, PYTHONPATH=f"{ROOT}"
    )
    assert done.returncode == 0, done.stderr
    return path


def settings(place: Path, **env: str) -> Config:
    """Return the settings of a worker with the preview engine below a directory."""
    ours = {"MUSETALK_ENGINE": "preview", "OUTPUT_DIR": f"{place / 'out'}"}
    return Config.from_env({**ours, "AVATAR_CACHE_DIR": f"{place / 'avatars'}", **env})


def start(place: Path, record: Path | None = None, **env: str) -> Runtime:
    """Start a worker that takes local files."""
    config = settings(place, **env)
    return bootstrap(config, fetch=LocalFetch(web_fetch(config)), record=record)


# -- what is told ----------------------------------------------------------------------------------


def test_a_result_leads_back_to_the_image_and_the_commit_it_was_made_with(
    tmp_path: Path, record: Path, face: Path, word: Path
) -> None:
    runtime = start(tmp_path, record, IMAGE_DIGEST=DIGEST)

    done = handle({"video_url": face.as_uri(), "audio_url": word.as_uri()}, runtime)
    failed = handle({"video_url": face.as_uri()}, runtime)

    assert isinstance(done, Success)
    assert isinstance(failed, Failure)
    assert done.worker == failed.worker
    assert done.to_json()["worker"] == {
        "contract": CONTRACT_VERSION,
        "version": __version__,
        "git_commit": COMMIT,
        "image_digest": DIGEST,
        "image_id": None,
        "lock_sha256": hashlib.sha256(LOCK.read_bytes()).hexdigest(),
        "engine": "preview",
        "weights": None,
        "torch": None,
        "cuda": None,
        "face_tracker": "cpu",
        "ffmpeg": ffmpeg_version(),
        "isolation": "rlimit",
        "worker_id": runtime.worker.worker_id,
        "provider": "unknown",
        "cold_start_sec": runtime.worker.cold_start_sec,
    }
    for result in (done, failed):
        schema = type(result).model_json_schema(mode="serialization")
        jsonschema.validate(result.to_json(), schema)
        assert "contract" in schema["$defs"]["Worker"]["properties"]


def ffmpeg_version() -> str:
    done = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[2]


def test_health_heartbeats_and_the_doctor_say_what_results_say(
    tmp_path: Path, record: Path
) -> None:
    runtime = start(tmp_path, record, IMAGE_DIGEST=DIGEST)
    known = runtime.worker.model_dump(mode="json", exclude={"worker_id", "provider"})

    with open_door(runtime) as door, PollLoopDriver(runtime, tmp_path) as poll:
        health = door.driver.ask("GET", "/health").body
        poll.wait(poll.submit({"musetalk_job_id": "job-1", "video_url": "no url"}))
        heartbeat = poll.orchestrator.said("main heartbeat")[0]
        [started] = poll.logged("started")
    identity = examine(settings(tmp_path, IMAGE_DIGEST=DIGEST), record=record).identity

    assert heartbeat["system_info"] == known
    assert known.items() <= health.items()
    assert known.items() <= started.items()
    del known["cold_start_sec"]
    assert known.items() <= identity.items()


def test_outside_of_an_image_nothing_is_made_up(tmp_path: Path) -> None:
    worker = start(tmp_path, tmp_path / "none.json").worker

    assert (worker.git_commit, worker.lock_sha256) == (None, None)
    assert (worker.image_digest, worker.image_id) == (None, None)


def test_what_modal_calls_its_image_is_told_and_not_taken_for_a_digest(tmp_path: Path) -> None:
    worker = start(tmp_path, MODAL_IMAGE_ID="im-CD7UJDiRkSqsRD6sv6w2cS").worker

    assert (worker.image_id, worker.image_digest) == ("im-CD7UJDiRkSqsRD6sv6w2cS", None)


@pytest.mark.parametrize("name", ["", "ghcr.io/someone/musetalk-worker@", "worker:0.1.0@"])
def test_an_image_may_be_told_by_its_digest_or_by_its_full_name(name: str) -> None:
    config = Config.from_env({"IMAGE_DIGEST": f"{name}{DIGEST}"})

    assert config.image_digest == DIGEST


@pytest.mark.parametrize(
    "digest", ["latest", "musetalk-worker:0.1.0", DIGEST[:-1], "im-CD7UJDiRkSqsRD6sv6w2cS"]
)
def test_what_is_no_digest_stops_the_start_and_names_its_variable(digest: str) -> None:
    with pytest.raises(ConfigError, match="IMAGE_DIGEST"):
        Config.from_env({"IMAGE_DIGEST": digest})


def test_a_result_of_a_worker_that_told_less_can_still_be_read() -> None:
    old = {"version": "0.0.9", "engine": "preview", "worker_id": "w", "git_commit": None}

    worker = Worker.model_validate(old)

    assert (worker.version, worker.contract, worker.isolation) == ("0.0.9", None, None)


# -- a record that cannot be believed --------------------------------------------------------------


def spoiled(**fields: Any) -> bytes:
    whole = {"format": 1, "version": "1", "git_commit": COMMIT, "lock_sha256": "ab" * 32}
    told = {name: value for name, value in (whole | fields).items() if value != "gone"}
    return json.dumps(told).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        spoiled()[:40],
        b"\xff\xfe",
        b"[]",
        spoiled(format=2),
        spoiled(git_commit="main"),
        spoiled(git_commit="gone"),
        spoiled(lock_sha256=None),
    ],
    ids=["empty", "cut off", "no text", "a list", "newer", "a branch", "no commit", "no lock"],
)
def test_an_image_that_cannot_say_what_it_is_does_not_start_and_says_why(
    tmp_path: Path, content: bytes
) -> None:
    damaged = tmp_path / "build.json"
    damaged.write_bytes(content)

    with pytest.raises(ConfigError, match=r"build\.json does not say .* Build the image anew"):
        start(tmp_path, damaged)


def test_a_record_that_cannot_be_read_is_no_missing_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not say"):
        read_record(tmp_path)


def test_a_commit_that_the_builder_did_not_tell_is_null(tmp_path: Path) -> None:
    path = tmp_path / "build.json"
    path.write_bytes(spoiled(git_commit=None))

    worker = start(tmp_path, path).worker

    assert (worker.git_commit, worker.lock_sha256) == (None, "ab" * 32)


# -- what only the engine knows --------------------------------------------------------------------


@pytest.mark.parametrize("supervised", ["false", "true"])
def test_versions_are_told_by_whichever_process_has_the_engine(
    tmp_path: Path, weights: Path, supervised: str
) -> None:
    worker = open_musetalk(tmp_path, weights, SUPERVISED=supervised).runtime.worker

    pytorch = PyTorch.installed()
    assert pytorch
    assert (worker.torch, worker.cuda) == (pytorch.version, None)
    assert worker.face_tracker == "cpu"


def test_the_preview_does_not_wait_for_pytorch_to_say_that_it_has_none(tmp_path: Path) -> None:
    script = (
        "import os, sys;"
        "from adapters.bootstrap import bootstrap; from adapters.config import Config;"
        "worker = bootstrap(Config.from_env(os.environ)).worker;"
        "print(worker.torch, 'torch' in sys.modules)"
    )
    env = {"MUSETALK_ENGINE": "preview", "AVATAR_CACHE_DIR": f"{tmp_path}"}

    done = run_python(script, **env)

    assert done == "None False"


def run_python(script: str, **env: str) -> str:
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def engine_of(**facts: str) -> Callable[[], Parts]:
    """Return an engine that says so of itself."""
    return lambda: replace(preview_parts(), **facts)


@pytest.mark.parametrize(("tracker", "warnings"), [("cpu", 1), ("cuda", 0)])
def test_a_worker_that_leaves_its_gpu_alone_when_it_looks_for_faces_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tracker: str, warnings: int
) -> None:
    engine = engine_of(torch="2.13.0", cuda="13.0", tracker_device=tracker)

    worker = bootstrap(settings(tmp_path), engine=engine).worker

    assert (worker.cuda, worker.face_tracker) == ("13.0", tracker)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [line for line in lines if line["message"] == "faces are tracked on the CPU"]
    assert len(told) == warnings
    assert all("onnxruntime-gpu" in line["advice"] for line in told)


# -- what holds its children -----------------------------------------------------------------------


def test_a_worker_that_cannot_bound_its_children_says_that_nothing_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}")

    worker = start(tmp_path, ENCODER="libx264").worker

    assert (worker.isolation, worker.ffmpeg) == ("none", None)


def test_a_worker_whose_children_all_fail_to_start_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prlimit").write_text("#!/bin/sh\necho failed to set the AS limit >&2; exit 1\n")
    (tmp_path / "prlimit").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(ConfigError, match=r"prlimit cannot bound .* failed to set the AS limit"):
        start(tmp_path, ENCODER="libx264")
