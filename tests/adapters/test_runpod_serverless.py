"""RunPod's door, as RunPod sees it: real worker processes under the real SDK."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from handler import Success, read_result
from tests.adapters.transfer.loopback import (
    Answer,
    Handler,
    body,
    dripping_body,
    serving,
    status,
)
from tests.drive_runpod import FAKE_WORKER, WORKER, RunpodDriver
from tests.runpod_backend import API_KEY

#: Media that the fake worker knows.
FAKE_MEDIA = {
    "video_url": "https://example.com/video.mp4",
    "audio_url": "https://example.com/audio.wav",
}
SECRET = "s3cr3t"
CLI = Path(sys.executable).with_name("musetalk-worker")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunpodDriver]:
    """Lend a worker whose engine obeys its jobs' metadata, and whose operator is curious."""
    home = tmp_path_factory.mktemp("fake")
    with RunpodDriver(home, FAKE_WORKER, RUNPOD_LOG_LEVEL="DEBUG") as worker:
        yield worker


@pytest.fixture(scope="module")
def preview(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunpodDriver]:
    """Lend a worker as it is deployed, with the preview engine."""
    with RunpodDriver(tmp_path_factory.mktemp("preview")) as worker:
        yield worker


@pytest.fixture(scope="module")
def media(face: Path, word: Path) -> Iterator[str]:
    """Serve the sample face and voice, and a file that comes byte by byte."""
    files: dict[str, Answer] = {
        "/face": body(face.read_bytes()),
        "/voice": body(word.read_bytes()),
        "/slow": dripping_body,
    }

    def answer(handler: Handler) -> None:
        files.get(handler.path.partition("?")[0], status(404))(handler)

    with serving(answer) as site:
        yield site.url


def fake_job(**metadata: object) -> dict[str, Any]:
    """Return a job that tells the fake worker what to do."""
    told = {name: str(value) for name, value in metadata.items()}
    return {**FAKE_MEDIA, "metadata": told}


# -- what jobs become ------------------------------------------------------------------------------


def test_a_job_becomes_the_output_that_the_contract_promises(
    preview: RunpodDriver, media: str, contract: Callable[[str], dict[str, Any]]
) -> None:
    job = {"video_url": f"{media}/face", "audio_url": f"{media}/voice"}

    handle = preview.submit(job)
    output = preview.wait(handle)

    result = read_result(output)
    assert isinstance(result, Success)
    assert result.musetalk_job_id == handle
    assert (preview.out / f"{handle}.mp4").as_uri() == result.output_url
    assert contract("success").keys() <= output.keys()
    assert contract("success")["metrics"].keys() <= output["metrics"].keys()
    assert result.worker is not None
    assert (result.worker.engine, result.worker.worker_id) == ("preview", "pod-7")


def test_an_operator_reads_what_took_its_place_in_the_queue(preview: RunpodDriver) -> None:
    line = json.loads(preview.log_line('"ready"'))

    assert (line["engine"], line["gpu_class"], line["contract"]) == ("preview", "cpu", "1.0")
    assert line["storage"] == f"directory {preview.out}"


def test_a_source_that_is_gone_is_the_callers_fault(preview: RunpodDriver, media: str) -> None:
    job = {"video_url": f"{media}/gone?token={SECRET}", "audio_url": f"{media}/voice"}

    failure = preview.run(job)

    assert (failure["status"], failure["error_type"]) == ("failed", "media_error")
    assert (failure["stage"], failure["retryable"]) == ("download", False)
    assert failure["details"] == {"url": f"{media}/gone", "status_code": 404}


def test_a_fault_of_the_worker_may_be_tried_again(
    fake: RunpodDriver, contract: Callable[[str], dict[str, Any]]
) -> None:
    failure = fake.run({**fake_job(act="exhaust"), "musetalk_job_id": "job-123"})

    assert failure["musetalk_job_id"] == "job-123"
    assert contract("processing_error").keys() <= failure.keys()
    assert (failure["error_type"], failure["retryable"]) == ("processing_error", True)
    assert failure["details"] == {"is_oom": True}


def test_junk_is_refused_and_the_worker_goes_on(fake: RunpodDriver) -> None:
    nested: dict[str, Any] = {}
    for _ in range(400):
        nested = {"metadata": nested}
    fields = [{"junk": "x" * 9_900_000}, nested, {"\udce9": 1}, {"musetalk_job_id": "../b"}]
    junk = [None, [FAKE_MEDIA], "a job", *({**FAKE_MEDIA, **field} for field in fields)]

    handles = [fake.submit(job) for job in (*junk, FAKE_MEDIA)]
    *refused, last = [fake.wait(handle) for handle in handles]

    for failure in refused:
        assert (failure["error_type"], failure["error_code"]) == ("media_error", "invalid_job")
    assert last["status"] == "success"


def test_a_request_without_a_job_is_answered_without_our_insides(fake: RunpodDriver) -> None:
    failure = fake.wait(fake.backend.send())

    assert (failure["error_type"], failure["error_code"]) == ("media_error", "invalid_job")


def test_what_runpod_adds_to_a_job_is_no_part_of_it(fake: RunpodDriver) -> None:
    ours = {"webhook": f"https://example.com/?{SECRET}", "s3Config": {"accessSecret": SECRET}}

    handle = fake.backend.send(input=FAKE_MEDIA, policy={"ttl": 10_000}, batchId="7", **ours)

    assert fake.wait(handle)["status"] == "success"
    assert SECRET not in fake.log


def test_a_result_that_would_get_lost_on_its_way_is_a_failure_instead(fake: RunpodDriver) -> None:
    handles = [fake.submit(fake_job(act=act)) for act in ("nan", "swell", "nothing")]
    *lost, last = [fake.wait(handle) for handle in handles]

    for failure in lost:
        assert (failure["error_type"], failure["retryable"]) == ("unknown_error", False)
        assert failure["error_code"] == "result_unsendable"
    assert last["status"] == "success"


def test_an_answer_that_runpod_does_not_take_is_all_that_is_lost(fake: RunpodDriver) -> None:
    fake.backend.refusals.append(400)

    refused = fake.submit(FAKE_MEDIA)
    fake.log_line(refused, "Failed to return job results")

    assert fake.run(FAKE_MEDIA)["status"] == "success"
    assert fake.backend.posts(refused) == []


# -- two jobs, and fewer ---------------------------------------------------------------------------


def test_the_media_of_one_job_travel_while_another_has_the_gpu(
    fake: RunpodDriver, tmp_path: Path
) -> None:
    animating = fake.submit(fake_job(until=tmp_path / "gate"))
    fake.backend.progress(animating, timeout=10)
    downloaded = fake.submit(FAKE_MEDIA)

    report = fake.backend.progress(downloaded, timeout=10).body["output"]
    still_animating = all(not post.final for post in fake.backend.posts(animating))
    (tmp_path / "gate").touch()

    assert report["phase"] == "inferring"
    assert still_animating
    assert {fake.wait(job)["status"] for job in (animating, downloaded)} == {"success"}


def test_a_stopped_job_frees_the_gpu_within_two_seconds(fake: RunpodDriver, tmp_path: Path) -> None:
    unwanted = fake.submit(fake_job(until=tmp_path / "never"))
    fake.backend.progress(unwanted, timeout=10)
    following = fake.submit(FAKE_MEDIA)
    fake.backend.progress(following, timeout=10)

    stopped = time.monotonic()
    fake.cancel(unwanted)
    fake.cancel(unwanted)
    result = fake.wait(following)

    assert result["status"] == "success"
    assert fake.backend.final(following, 0).arrived - stopped < 2
    assert not any(post.final for post in fake.backend.posts(unwanted))
    assert "cancelled" in fake.log_line(unwanted, "job failed")


def test_only_the_job_that_is_stopped_ends(fake: RunpodDriver, tmp_path: Path) -> None:
    over = fake.submit(FAKE_MEDIA)
    fake.wait(over)
    animating = fake.submit(fake_job(until=tmp_path / "gate"))
    fake.backend.progress(animating, timeout=10)
    waiting = fake.submit(FAKE_MEDIA)
    fake.backend.progress(waiting, timeout=10)

    for job in (over, "never heard of", waiting):
        fake.cancel(job)
    end = fake.log_line(waiting, "job failed", timeout=2)
    (tmp_path / "gate").touch()

    assert "cancelled" in end
    assert fake.wait(animating)["status"] == "success"


def test_a_video_that_is_being_stored_can_be_stopped_too(
    fake: RunpodDriver, tmp_path: Path
) -> None:
    unwanted = fake.submit(fake_job(upload_until=tmp_path / "never"))
    fake.backend.progress(unwanted, timeout=10)

    fake.cancel(unwanted)

    end = fake.log_line(unwanted, "job failed", timeout=2)
    assert '"error_code": "cancelled", "stage": "upload"' in end


def test_a_slow_download_can_be_stopped_too(preview: RunpodDriver, media: str) -> None:
    unwanted = preview.submit({"video_url": f"{media}/slow", "audio_url": f"{media}/voice"})
    preview.backend.progress(unwanted, timeout=10)

    preview.cancel(unwanted)

    assert "cancelled" in preview.log_line(unwanted, "job failed", timeout=2)


# -- progress --------------------------------------------------------------------------------------


def test_progress_comes_in_order_once_a_second_and_never_after_the_end(
    fake: RunpodDriver, tmp_path: Path
) -> None:
    job = fake.submit(fake_job(until=tmp_path / "gate"))
    fake.backend.wait_for(lambda: len(fake.backend.posts(job)) == 2, 10, "two reports")
    (tmp_path / "gate").touch()
    fake.wait(job)
    # Whatever could still come for the first job would come before the end of another.
    fake.run(FAKE_MEDIA)

    *reports, end = fake.backend.posts(job)
    fractions = [report.body["output"]["progress"] for report in reports]
    moments = [report.arrived for report in reports]
    assert end.final
    assert not any(report.final for report in reports)
    assert fractions == sorted(set(fractions))
    assert all(later - sooner > 0.8 for sooner, later in pairwise(moments))
    assert reports[0].body["output"].keys() == {"status", "progress", "phase"}


def test_the_end_waits_for_a_report_that_is_still_under_way(
    fake: RunpodDriver, tmp_path: Path
) -> None:
    fake.backend.slow_progress_seconds = 1.0
    job = fake.submit(fake_job(until=tmp_path / "gate"))
    report = fake.backend.progress(job, timeout=10)
    (tmp_path / "gate").touch()

    end = fake.backend.final(job, timeout=10)

    fake.backend.slow_progress_seconds = 0.0
    assert report.answered <= end.arrived


# -- ends of the worker ----------------------------------------------------------------------------


def test_a_broken_gpu_is_answered_and_the_worker_replaced(tmp_path: Path) -> None:
    with RunpodDriver(tmp_path, FAKE_WORKER) as worker:
        breaking = worker.submit(fake_job(act="break", until=tmp_path / "gate"))
        beside = worker.submit({**FAKE_MEDIA, "video_url": "https://example.com/endless.mp4"})
        worker.backend.progress(beside, timeout=10)
        late = worker.submit(FAKE_MEDIA)
        (tmp_path / "gate").touch()

        failures = [worker.wait(job) for job in (breaking, beside)]

        assert {failure["error_code"] for failure in failures} == {"worker_broken"}
        assert all(failure["retryable"] for failure in failures)
        assert worker.backend.final(breaking, 0).body["stopPod"] is True
        assert worker.exit_code() == 75
        assert worker.backend.waiting() == [late]


def test_a_video_that_was_done_before_the_gpu_broke_is_delivered(tmp_path: Path) -> None:
    with RunpodDriver(tmp_path, FAKE_WORKER) as worker:
        done = worker.submit(fake_job(upload_until=tmp_path / "gate"))
        worker.backend.progress(done, timeout=10)
        worker.run(fake_job(act="break"))
        (tmp_path / "gate").touch()

        assert worker.wait(done)["status"] == "success"
        assert worker.exit_code() == 75


def test_an_idle_worker_ends_at_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with RunpodDriver(tmp_path, FAKE_WORKER) as worker:
        worker.backend.wait_for(worker.backend.pings, 10, "a heartbeat")
        worker.run(FAKE_MEDIA)

        told = time.monotonic()
        worker.terminate()
        code = worker.exit_code()
        late = worker.submit(FAKE_MEDIA)

        assert code == 0
        assert time.monotonic() - told < 5
        assert worker.backend.waiting() == [late]
        with pytest.raises(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)


def test_what_is_in_hand_is_finished_and_nothing_begun_however_often_the_worker_is_told_to_end(
    tmp_path: Path,
) -> None:
    gate, second_gate = tmp_path / "gate", tmp_path / "second gate"
    with RunpodDriver(tmp_path, FAKE_WORKER) as worker:
        in_hand = worker.submit(fake_job(until=gate))
        worker.backend.progress(in_hand, timeout=10)
        worker.terminate()
        worker.log_line("leaving")
        worker.terminate()
        # A request for a job was already open: RunPod may answer it.
        just_taken = worker.submit(fake_job(until=second_gate))
        worker.backend.wait_for(lambda: just_taken in worker.backend.taken(), 5, "the taking")
        late = worker.submit(FAKE_MEDIA)
        gate.touch()
        worker.backend.progress(just_taken, timeout=10)
        second_gate.touch()

        assert worker.exit_code() == 0
        assert [worker.wait(job, 0)["status"] for job in (in_hand, just_taken)] == ["success"] * 2
        assert worker.backend.waiting() == [late]


def test_a_server_that_is_out_of_order_is_not_stormed_with_questions(
    fake: RunpodDriver, tmp_path: Path
) -> None:
    in_hand = fake.submit(fake_job(until=tmp_path / "gate"))
    fake.backend.progress(in_hand, timeout=10)

    broken = time.monotonic()
    fake.backend.break_down()
    fake.backend.wait_for(lambda: fake.backend.vain() >= 3, 10, "the third question")
    asked = time.monotonic()
    fake.backend.recover()
    (tmp_path / "gate").touch()

    assert asked - broken > 0.8
    assert fake.wait(in_hand)["status"] == fake.run(FAKE_MEDIA)["status"] == "success"


# -- starts of the worker --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "check", "reason"),
    [
        ({"PATH": "/nowhere"}, "ffmpeg", "ffmpeg"),
        ({"OUTPUT_DIR": f"{__file__}/out"}, "storage", "cannot be written"),
        ({"MUSETALK_ENGINE": "musetalk"}, "gpu", "no NVIDIA driver"),
        (
            {"MUSETALK_ENGINE": "musetalk", "DEVICE": "cpu", "MUSETALK_WEIGHTS_DIR": "/nowhere"},
            "engine",
            "MUSETALK_WEIGHTS_DIR=/nowhere lacks",
        ),
    ],
)
def test_a_worker_that_could_do_no_job_says_why_and_takes_none(
    tmp_path: Path, env: dict[str, str], check: str, reason: str
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("ffmpeg", "ffprobe"):
        (tools / tool).symlink_to(str(shutil.which(tool)))

    with RunpodDriver(tmp_path, **{"PATH": f"{tools}"} | env) as worker:
        worker.submit(FAKE_MEDIA)

        assert worker.exit_code() == 1
        [ping] = worker.backend.pings()
        assert (ping["status"], ping["check"]) == ("unhealthy", check)
        assert reason in ping["reason"]
        assert len(worker.backend.waiting()) == 1


def test_a_worker_needs_no_store_for_jobs_that_bring_their_own(tmp_path: Path) -> None:
    with RunpodDriver(tmp_path, OUTPUT_DIR="") as worker:
        failure = worker.run({})

        assert failure["error_code"] == "invalid_job"
        assert "put_url" in worker.log_line("no storage")


def test_words_of_the_command_line_are_not_taken_for_the_sdks(tmp_path: Path) -> None:
    words = ("--rp_serve_api", "--rp_log_level=DEBUG", "--test", "no JSON")

    with RunpodDriver(tmp_path, (*FAKE_WORKER, *words)) as worker:
        assert worker.run(FAKE_MEDIA)["status"] == "success"


@pytest.mark.parametrize(
    ("command", "env", "complaint"),
    [
        (WORKER, {"MAX_FPS": "many", "RUNPOD_WEBHOOK_GET_JOB": "http://x/"}, "MAX_FPS"),
        ((f"{CLI}", "runpod"), {}, "musetalk-worker run"),
    ],
)
def test_a_start_that_makes_no_sense_is_explained_and_exits_with_2(
    tmp_path: Path, command: tuple[str, ...], env: dict[str, str], complaint: str
) -> None:
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


# -- what is printed -------------------------------------------------------------------------------


def test_no_log_holds_a_secret_whatever_the_log_level(fake: RunpodDriver) -> None:
    pair = {
        "put_url": f"https://example.com/up?X-Amz-Signature={SECRET}",
        "get_url": f"https://example.com/video.mp4?X-Amz-Signature={SECRET}",
    }
    gone = {"video_url": f"https://example.com/gone?token={SECRET}"}

    stored = fake.run({**FAKE_MEDIA, "output": pair})
    failed = fake.run({**FAKE_MEDIA, **gone})

    assert stored["output_url"] == pair["get_url"]
    assert failed["details"]["url"] == "https://example.com/gone"
    fake.log_line("job failed", "download_failed")
    assert SECRET not in fake.log
    assert API_KEY not in fake.log
