"""The trial of a finished image: what works passes, what does not is told and fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import clips
from tests.build_scripts import Done, run_script


@pytest.fixture(scope="module")
def glance(face: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the first five frames of the sample face."""
    target = tmp_path_factory.mktemp("glance") / "face.mp4"
    clips.run_ffmpeg(*("-i", f"{face}", "-frames:v", "5", "-an"), f"{target}")
    return target


@pytest.fixture(scope="module")
def syllable(voice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return as much of the sample voice."""
    target = tmp_path_factory.mktemp("syllable") / "voice.wav"
    clips.run_ffmpeg("-i", f"{voice}", "-t", "0.2", f"{target}")
    return target


def smoke(door: str, face: Path, voice: Path, **env: str) -> Done:
    """Run the trial in an environment whose engine is the preview, if nothing else is said."""
    media = ("--video", f"{face}", "--audio", f"{voice}")
    return run_script("smoke", "--door", door, *media, **({"MUSETALK_ENGINE": "preview"} | env))


@pytest.mark.parametrize("door", ["http", "runpod", "local"])
def test_a_door_that_works_passes_and_what_was_looked_at_is_told(
    door: str, glance: Path, syllable: Path
) -> None:
    # A trial must reach neither the bucket nor the orchestrator of the environment it runs in.
    real = {"B2_BUCKET_NAME": "videos", "ORCHESTRATOR_BASE_URL": "https://orchestrator.example"}

    done = smoke(door, glance, syllable, **real)

    assert done.returncode == 0, done.stderr
    assert "ok  the result is what its schema says; preview" in done.stdout
    assert "ok  the video is there: 5 frames" in done.stdout
    assert "ok  told to stop, the worker ended with exit code 0" in done.stdout


def test_musetalk_passes_with_its_weights_read_from_where_the_environment_says(
    weights: Path, glance: Path, syllable: Path
) -> None:
    # In one process, for PyTorch takes its time to import.
    engine = {"MUSETALK_ENGINE": "musetalk", "DEVICE": "cpu", "SUPERVISED": "false"}

    done = smoke("http", glance, syllable, MUSETALK_WEIGHTS_DIR=f"{weights}", **engine)

    assert done.returncode == 0, done.stderr
    assert "musetalk-1.5 " in done.stdout


@pytest.mark.parametrize("door", ["http", "runpod"])
def test_a_worker_that_does_not_start_fails_at_once_with_what_it_said(
    door: str, glance: Path, syllable: Path
) -> None:
    done = smoke(door, glance, syllable, BATCH_SIZE="many")

    assert done.returncode == 1
    assert "no  The worker ended with exit code 2." in done.stderr
    assert "BATCH_SIZE" in done.stderr


@pytest.mark.parametrize("door", ["http", "runpod", "local"])
def test_a_job_that_fails_fails_the_trial(door: str, syllable: Path) -> None:
    done = smoke(door, syllable, syllable)

    assert done.returncode == 1
    assert "no  The job failed, " in done.stderr
