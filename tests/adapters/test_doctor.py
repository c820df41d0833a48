"""The doctor says why a worker could not take a job, and what to do about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.config import Config
from adapters.diagnosis import Diagnosis, Finding
from adapters.doctor import examine
from handler.result import Worker
from inference.parts import Parts
from inference.preview import preview_parts

WORKER = Path(sys.executable).with_name("musetalk-worker")
#: Below this, nothing can be: it is a file.
NOWHERE = f"{__file__}/below"
#: Longer than any file system takes.
ENDLESS = f"/{'x' * 300}"
#: What any machine has.
MODEST = {"MUSETALK_ENGINE": "preview", "MAX_DOWNLOAD_MB": "1"}

Settings = Callable[..., Config]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return what makes the settings of a worker that could take a job, but for what is named."""

    def named(**env: str) -> Config:
        ours = {**MODEST, "OUTPUT_DIR": f"{tmp_path / 'out'}"}
        return Config.from_env(ours | {"AVATAR_CACHE_DIR": f"{tmp_path / 'avatars'}"} | env)

    return named


def wrong(diagnosis: Diagnosis) -> dict[str, Finding]:
    return {each.subject: each for each in diagnosis.findings if not each.fine}


def test_a_worker_that_could_take_a_job_has_nothing_wrong_with_it(settings: Settings) -> None:
    diagnosis = examine(settings())

    assert wrong(diagnosis) == {}
    subjects = {finding.subject for finding in diagnosis.findings}
    assert subjects >= {"ffmpeg", "gpu", "storage", "isolation", "weights", "engine", "faces"}
    assert subjects >= {"disk", "cache", "orchestrator", "identity"}


@pytest.mark.parametrize(
    ("subject", "env", "text", "remedy"),
    [
        ("storage", {"OUTPUT_DIR": ""}, "none", "B2_BUCKET_NAME"),
        ("storage", {"OUTPUT_DIR": NOWHERE}, NOWHERE, "OUTPUT_DIR"),
        ("storage", {"OUTPUT_DIR": ENDLESS}, "File name too long", "OUTPUT_DIR"),
        ("cache", {"AVATAR_CACHE_DIR": NOWHERE}, "test_doctor.py is a file", "AVATAR_CACHE_DIR"),
        ("disk", {"MAX_DOWNLOAD_MB": "1000000000"}, "no room", "TMPDIR"),
        ("orchestrator", {"ORCHESTRATOR_BASE_URL": "https://o"}, "no key", "INTERNAL_API_KEY"),
        ("orchestrator", {"BUFFER_ORCHESTRATOR_BASE_URL": "https://o"}, "o and no key", "set"),
        (
            "spool",
            {
                "ORCHESTRATOR_BASE_URL": "https://o",
                "INTERNAL_API_KEY": "k",
                "SPOOL_DIR": NOWHERE,
            },
            NOWHERE,
            "SPOOL_DIR",
        ),
        (
            "weights",
            {"MUSETALK_ENGINE": "musetalk", "DEVICE": "cpu", "MUSETALK_WEIGHTS_DIR": "/nowhere"},
            "/nowhere lacks musetalkV15/unet.pth",
            "musetalk-worker weights fetch",
        ),
        ("settings", {"WEBHOOK_SECRET": "whsec_a"}, "WEBHOOK_SECRET", "change what it names"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do_and_nothing_else_is_blamed(
    settings: Settings, subject: str, env: dict[str, str], text: str, remedy: str
) -> None:
    found = wrong(examine(settings(**env)))

    assert found.keys() == {subject}
    assert text in found[subject].text
    assert remedy in (found[subject].remedy or "")


def test_an_orchestrator_that_is_named_with_its_key_is_not_asked(settings: Settings) -> None:
    env = {"ORCHESTRATOR_BASE_URL": "https://nobody.invalid", "INTERNAL_API_KEY": "s3cr3t"}

    diagnosis = examine(settings(**env))

    assert wrong(diagnosis) == {}
    assert "spool" in {finding.subject for finding in diagnosis.findings}
    assert "s3cr3t" not in json.dumps(diagnosis.to_json())


def test_a_key_that_only_one_door_needs_is_in_no_others_way(settings: Settings) -> None:
    diagnosis = examine(settings(INTERNAL_API_KEY="k"))

    told = {finding.subject: finding.text for finding in diagnosis.findings}
    assert wrong(diagnosis) == {}
    assert "`local` would not start" in told["orchestrator"]


def test_an_examination_leaves_nothing_where_the_worker_keeps_its_things(
    settings: Settings, tmp_path: Path
) -> None:
    examine(settings())

    assert list(tmp_path.iterdir()) == []


def test_without_ffmpeg_no_job_can_be_done(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}")

    found = wrong(examine(settings()))

    assert "not installed" in found["ffmpeg"].text
    assert "apt-get install ffmpeg" in (found["ffmpeg"].remedy or "")


# -- the engine ------------------------------------------------------------------------------------


def engine_of(**facts: str) -> Callable[[], Parts]:
    """Return an engine that says so of itself."""
    return lambda: replace(preview_parts(), **facts)


def test_a_gpu_that_is_not_used_to_look_for_faces_is_nothing_to_overlook(
    settings: Settings,
) -> None:
    slow = examine(settings(), engine_of(cuda="13.0", tracker_device="cpu"))
    quick = examine(settings(), engine_of(cuda="13.0", tracker_device="cuda"))

    assert wrong(slow).keys() == {"faces"}
    assert "onnxruntime-gpu" in (wrong(slow)["faces"].remedy or "")
    assert (slow.identity["cuda"], slow.identity["face_tracker"]) == ("13.0", "cpu")
    assert wrong(quick) == {}


def test_an_engine_that_fails_in_a_way_nobody_foresaw_is_a_finding_without_secrets(
    settings: Settings,
) -> None:
    def explode() -> Parts:
        raise RuntimeError("CUDA out of memory, see https://user:s3cr3t@example.com/w?token=s3cr3t")

    diagnosis = examine(settings(), explode)

    assert wrong(diagnosis).keys() == {"engine"}
    assert "RuntimeError: CUDA out of memory" in wrong(diagnosis)["engine"].text
    assert "s3cr3t" not in json.dumps(diagnosis.to_json())
    assert diagnosis.identity["engine"] == "preview"


def test_an_engine_that_is_to_have_a_process_of_its_own_is_looked_at_in_this_one(
    settings: Settings,
) -> None:
    diagnosis = examine(settings(SUPERVISED="true"), engine_of(weights="of this process"))

    assert diagnosis.identity["weights"] == "of this process"


def test_an_image_that_cannot_say_what_it_is_keeps_nothing_else_from_being_found(
    settings: Settings, tmp_path: Path
) -> None:
    damaged = tmp_path / "build.json"
    damaged.write_text("{")

    diagnosis = examine(settings(OUTPUT_DIR=""), record=damaged)

    assert wrong(diagnosis).keys() == {"identity", "storage"}
    assert "build the image anew" in (wrong(diagnosis)["identity"].remedy or "")
    assert "engine" in {finding.subject for finding in diagnosis.findings}


# -- the command -----------------------------------------------------------------------------------


def doctor(tmp_path: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Ask the doctor in a shell."""
    ours = {"PATH": os.environ["PATH"], "AVATAR_CACHE_DIR": f"{tmp_path / 'avatars'}"}
    return subprocess.run(
        [f"{WORKER}", "doctor", *words],
        cwd=tmp_path,
        env={**ours, **MODEST, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("env", "code", "status", "wrong_subjects"),
    [
        ({"OUTPUT_DIR": "out"}, 0, "ok", set()),
        ({}, 1, "unhealthy", {"storage"}),
        ({"MAX_FPS": "many"}, 2, "unhealthy", {"settings"}),
    ],
)
def test_a_program_reads_one_document_whatever_was_found(
    tmp_path: Path, env: dict[str, str], code: int, status: str, wrong_subjects: set[str]
) -> None:
    done = doctor(tmp_path, "--json", **env)

    said: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, said["status"]) == (code, status)
    assert said["identity"].keys() == Worker.model_fields.keys()
    assert said["identity"]["contract"] == "1.0"
    assert said["findings"]
    for finding in said["findings"]:
        assert finding.keys() == {"subject", "fine", "text", "remedy"}
        assert finding["fine"] == (finding["remedy"] is None)
    assert {each["subject"] for each in said["findings"] if not each["fine"]} == wrong_subjects


def test_a_person_reads_first_what_is_wrong(tmp_path: Path) -> None:
    done = doctor(tmp_path)

    headline, failure, remedy, *rest = done.stdout.splitlines()
    assert done.returncode == 1
    assert headline == "This worker could NOT take a job: storage."
    assert failure.split()[:2] == ["FAIL", "storage"]
    assert "set B2_KEY_ID" in remedy
    assert rest
    assert {line.split()[0] for line in rest} == {"ok"}
    assert "\x1b" not in done.stdout
