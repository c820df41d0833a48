"""The command line, as a shell sees it: words on two streams and an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

WORKER = Path(sys.executable).with_name("musetalk-worker")


Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_worker(tmp_path: Path) -> Shell:
    """Return what runs the command in an environment of its own."""

    def run(*words: object, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        ours = {"PATH": os.environ["PATH"], "AVATAR_CACHE_DIR": str(tmp_path / "avatars")}
        return subprocess.run(
            [str(WORKER), *map(str, words)],
            env=ours | env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_face_and_a_voice_make_a_video_and_a_result(
    run_worker: Shell, face: Path, word: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "talking.mp4"

    done = run_worker("run", "--engine=preview", "--video", face, "--audio", word, "--out", out)

    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert result["status"] == "success"
    assert result["output_url"] == out.as_uri()
    assert result["output"]["bytes"] == out.stat().st_size
    assert "completed" in done.stderr


def test_a_job_can_come_as_a_file_or_from_a_pipe(
    run_worker: Shell, face: Path, word: Path, tmp_path: Path
) -> None:
    job = {
        "musetalk_job_id": "job-7",
        "video_url": str(face),
        "audio_url": word.as_uri(),
        "params": {"crf": 30},
    }
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    settings = {"MUSETALK_ENGINE": "preview", "OUTPUT_DIR": str(tmp_path / "out")}

    from_file = run_worker("run", path, "--resolution", "128p", **settings)
    other = json.dumps(job | {"musetalk_job_id": "job-8"})
    from_pipe = run_worker("run", "-", "--param", "fit=pad", stdin=other, **settings)

    assert json.loads(from_file.stdout)["output"]["height"] == 128
    assert json.loads(from_pipe.stdout)["output"]["height"] == 512
    assert (tmp_path / "out" / "job-7.mp4").exists()


@pytest.mark.parametrize(
    ("words", "stage", "code"),
    [
        (["--video", "gone.mp4"], "download", "download_failed"),
        (["--video", "ftp://example.com/face.mp4"], "download", "download_failed"),
        (["--video", "http://169.254.169.254/face"], "download", "download_failed"),
        (["--param", "crf=99"], "validation", "invalid_job"),
        (["--param", "mouth=wide"], "validation", "invalid_job"),
        (["--sync-mode", "dance"], "validation", "invalid_job"),
        (["--resolution", "huge"], "validation", "invalid_job"),
    ],
)
def test_a_job_that_fails_says_why_and_exits_with_1(
    run_worker: Shell,
    face: Path,
    word: Path,
    tmp_path: Path,
    words: list[str],
    stage: str,
    code: str,
) -> None:
    media = ["--video", face, "--audio", word, "--out", tmp_path / "out.mp4"]

    done = run_worker("run", "--engine=preview", *media, *words)

    result = json.loads(done.stdout)
    assert done.returncode == 1
    assert (result["status"], result["stage"], result["error_code"]) == ("failed", stage, code)
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("params", [None, [1], "crf"])
def test_options_are_merged_into_an_object_or_the_job_is_refused(
    run_worker: Shell, face: Path, word: Path, tmp_path: Path, params: object
) -> None:
    job = {"video_url": str(face), "audio_url": str(word), "params": params}
    words = ["run", "-", "--engine=preview", "--out", tmp_path / "out.mp4", "--param", "crf=40"]

    done = run_worker(*words, stdin=json.dumps(job))

    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == (0 if params is None else 1)


def test_a_job_that_brings_its_own_place_needs_no_other(
    run_worker: Shell, face: Path, word: Path
) -> None:
    output = {"put_url": "https://127.0.0.1/up", "get_url": "https://cdn.example.com/v.mp4"}
    job = {"video_url": str(face), "audio_url": str(word), "output": output}

    done = run_worker("run", "-", "--engine=preview", stdin=json.dumps(job))

    assert json.loads(done.stdout)["stage"] == "upload"


def test_a_production_start_without_weights_fails_and_says_how_to_get_them(
    run_worker: Shell, face: Path, word: Path, tmp_path: Path
) -> None:
    media = ["--video", face, "--audio", word, "--out", tmp_path / "out.mp4"]

    done = run_worker("run", *media, MUSETALK_WEIGHTS_DIR=str(tmp_path))

    assert done.returncode == 2
    assert done.stdout == ""
    for word_of_help in ("unet.pth", "TMElyralab/MuseTalk", "MUSETALK_ENGINE=preview"):
        assert word_of_help in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "env", "complaint"),
    [
        (["run"], {}, "--out"),
        (["run", "no-such-job.json"], {}, "no-such-job.json"),
        (["run", "--out", "x.mp4", "--engine", "magic"], {}, "MUSETALK_ENGINE"),
        (["run", "--out", "x.mp4"], {"MAX_FPS": "many"}, "MAX_FPS"),
        (["run", "--out", "x.mp4", "--param", "crf"], {}, "name=value"),
        (["run", "--no-such-flag"], {}, "--no-such-flag"),
        (["run", "--out", "/tmp", "--engine", "preview"], {}, "directory"),
        (["run", "--out", "x.mp4"], {"MAX_VIDEO_SEC": "inf"}, "MAX_VIDEO_SEC"),
        (["run"], {"S3_ENDPOINT_URL": "foo"}, "S3_ENDPOINT_URL"),
        (["run"], {"OUTPUT_URL_TEMPLATE": "https://cdn/"}, "OUTPUT_URL_TEMPLATE"),
        (["schema", "poem"], {}, "job, result, failure"),
        (["doctor"], {"MAX_FPS": "many"}, "MAX_FPS"),
    ],
)
def test_a_command_that_makes_no_sense_is_explained_and_exits_with_2(
    run_worker: Shell, words: list[str], env: dict[str, str], complaint: str
) -> None:
    done = run_worker(*words, COLUMNS="200", **env)

    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_schemas_describe_what_is_really_sent(
    run_worker: Shell,
    contract: Callable[[str], dict[str, Any]],
) -> None:
    schemas = json.loads(run_worker("schema").stdout)

    jsonschema.validate(contract("job"), schemas["job"])
    jsonschema.validate(contract("success"), schemas["result"])
    jsonschema.validate(contract("media_error"), schemas["failure"])
    jsonschema.validate(contract("processing_error"), schemas["failure"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**contract("job"), "vidoe_url": "x"}, schemas["job"])


def test_one_schema_can_be_asked_for(run_worker: Shell) -> None:
    schema = json.loads(run_worker("schema", "job").stdout)

    assert schema["title"] == "Job"


def test_the_doctor_is_content_with_a_preview_worker(run_worker: Shell, tmp_path: Path) -> None:
    done = run_worker("doctor", MUSETALK_ENGINE="preview", OUTPUT_DIR=str(tmp_path))

    assert done.returncode == 0, done.stdout
    for subject in ("ffmpeg", "engine", "gpu", "storage", "isolation"):
        assert subject in done.stdout


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({}, "unet.pth"),
        ({"MUSETALK_ENGINE": "preview"}, "OUTPUT_DIR"),
        ({"MUSETALK_ENGINE": "preview", "OUTPUT_DIR": "/tmp", "PATH": "/nowhere"}, "ffmpeg"),
    ],
)
def test_the_doctor_says_what_is_missing_and_exits_with_1(
    run_worker: Shell, env: dict[str, str], complaint: str
) -> None:
    done = run_worker("doctor", COLUMNS="300", **env)

    assert done.returncode == 1
    assert complaint in done.stdout


def test_help_and_schemas_need_no_heavy_library() -> None:
    script = (
        "import sys, adapters.cli;"
        "print([name for name in ('cv2', 'numpy', 'boto3', 'torch') if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
