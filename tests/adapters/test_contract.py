"""One contract, four doors: the same stories, told to each through its platform's real client."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handler import Failure, Success, read_result
from tests import clips
from tests.adapters.transfer.loopback import Answer, Handler, body, serving, status
from tests.doors import DOORS, Door
from tests.steered_engine import Stage

Job = dict[str, Any]

#: Pictures a second of the face, and so of each result.
FPS = 25
#: A share of a job that only an engine which films has done.
NEARLY_DONE = 0.9


@pytest.fixture(scope="module", params=DOORS, ids=lambda door: door.__name__)
def door(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    """Open one door after the other, each for all of its stories."""
    with request.param(tmp_path_factory.mktemp("door")) as opened:
        yield opened


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Return where jobs can be made to wait."""
    with Stage() as opened:
        yield opened


@pytest.fixture(scope="module")
def media(
    face: Path, voice: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Serve a small face, a word, half a word, and what is no media; return their URLs."""
    folder = tmp_path_factory.mktemp("media")
    clips.run_ffmpeg("-i", f"{face}", "-t", "1", "-vf", "scale=256:256", f"{folder / 'face.mp4'}")
    clips.run_ffmpeg("-i", f"{voice}", "-t", "1", f"{folder / 'word.wav'}")
    clips.run_ffmpeg("-i", f"{voice}", "-t", "0.48", f"{folder / 'syllable.wav'}")
    (folder / "poem.wav").write_text("Shall I compare thee to a summer's day?\n" * 9)
    answers: dict[str, Answer] = {f"/{f.name}": body(f.read_bytes()) for f in folder.iterdir()}

    def answer(handler: Handler) -> None:
        answers.get(handler.path, status(404))(handler)

    with serving(answer) as site:
        names = ("face.mp4", "word.wav", "syllable.wav", "poem.wav", "gone.wav")
        yield {Path(name).stem: f"{site.url}/{name}" for name in names}


@pytest.fixture(scope="module")
def job(media: dict[str, str]) -> Job:
    """Return a job that can be done."""
    return {"video_url": media["face"], "audio_url": media["word"]}


def assert_filmed(door: Door, told: dict[str, Any], seconds: float) -> Success:
    """See that a job came back with its own video, as long as its voice."""
    result = read_result(told)
    assert isinstance(result, Success), told
    video = door.out / f"{result.musetalk_job_id}.mp4"
    assert result.output_url == video.as_uri()
    assert result.metrics.frames == seconds * FPS
    if door.tells_all:
        assert result.output
        assert result.output.sha256 == hashlib.sha256(video.read_bytes()).hexdigest()
    else:
        assert video.stat().st_size > 0
    return result


def failed(told: dict[str, Any]) -> dict[str, Any]:
    """Return what programs read of a failure, of what must be one."""
    result = read_result(told)
    assert isinstance(result, Failure), told
    facts = {"error_type", "error_code", "stage", "retryable", "details"}
    return result.model_dump(mode="json", include=facts)


# -- jobs that are done ----------------------------------------------------------------------------


def test_a_job_comes_back_with_its_video(door: Door, job: Job) -> None:
    named = {**job, "musetalk_job_id": "my.job:1"}

    result = assert_filmed(door, door.do(named), seconds=1)

    assert result.musetalk_job_id == "my.job:1"
    assert result.metrics.total_time > 0
    assert set(result.metrics.stage_times) == {"download", "validation", "inference", "upload"}


def test_two_jobs_handed_over_at_once_are_both_done_and_not_mixed_up(
    door: Door, job: Job, media: dict[str, str], stage: Stage
) -> None:
    of_word = {"voice": "word", **stage.directions}
    of_syllable = {"voice": "syllable", **stage.directions}
    short = {"audio_url": media["syllable"], "metadata": of_syllable}

    tickets = [door.submit({**job, "metadata": of_word}), door.submit({**job, **short})]
    in_hand = [stage.await_engine() for _ in range(door.at_once)]
    for held in in_hand:
        held.go_on()
    for _ in range(len(tickets) - door.at_once):
        stage.await_engine().go_on()
    word, syllable = (door.wait(ticket) for ticket in tickets)

    long_one = assert_filmed(door, word, seconds=1)
    short_one = assert_filmed(door, syllable, seconds=0.48)
    assert long_one.musetalk_job_id != short_one.musetalk_job_id
    if door.tells_all:
        assert (long_one.metadata, short_one.metadata) == (of_word, of_syllable)


def test_metadata_comes_back_untouched(door: Door, job: Job, media: dict[str, str]) -> None:
    metadata = {"größe": [1, 2.5, None, True], "": {"nested": {}}, "musetalk_job_id": "../x"}

    failure = door.do({**job, "audio_url": media["gone"], "metadata": metadata})
    success = door.do({**job, "metadata": metadata})

    assert failure["metadata"] == metadata
    assert not door.tells_all or success["metadata"] == metadata


def test_progress_never_falls_and_nothing_is_told_after_the_end(
    door: Door, job: Job, stage: Stage
) -> None:
    news = door.follow({**job, "metadata": stage.directions})
    told = [next(news)]
    # What the engine says first, before it takes it back.
    while told[-1]["progress"] < NEARLY_DONE:
        told.append(next(news))
    stage.await_engine().go_on()

    *running, end = [*told, *news]

    fractions = [word["progress"] for word in running]
    assert fractions == sorted(fractions)
    assert all(word["progress"] < 1 or word["phase"] == "completed" for word in running)
    assert {word["status"] for word in running} <= {"queued", "running"}
    assert end["status"] in {"success", "succeeded"}


# -- jobs that fail --------------------------------------------------------------------------------

#: What an id must look like, in the words of whoever reads it.
ID_REASON = "String should match pattern '^[A-Za-z0-9._:\\-]{1,200}$'"


@pytest.mark.parametrize(
    ("change", "details"),
    [
        ({"audio_url": None}, {"field": "audio_url", "reason": "Field required"}),
        ({"colour": "red"}, {"field": "colour", "reason": "Extra inputs are not permitted"}),
        (
            {"musetalk_job_id": "a..b"},
            {"field": "musetalk_job_id", "reason": "must not contain '..'"},
        ),
        ({"musetalk_job_id": "../a"}, {"field": "musetalk_job_id", "reason": ID_REASON}),
    ],
    ids=["missing field", "unknown field", "dots in the id", "slash in the id"],
)
def test_a_job_that_is_none_is_refused_in_the_same_words_everywhere(
    door: Door, job: Job, change: Job, details: dict[str, str]
) -> None:
    wrong = {name: value for name, value in {**job, **change}.items() if value is not None}

    assert failed(door.do(wrong)) == {
        "error_type": "media_error",
        "error_code": "invalid_job",
        "stage": "validation",
        "retryable": False,
        "details": details,
    }


def test_media_that_are_none_are_refused_in_the_same_words_everywhere(
    door: Door, job: Job, media: dict[str, str]
) -> None:
    assert failed(door.do({**job, "audio_url": media["poem"]})) == {
        "error_type": "media_error",
        "error_code": "media_unreadable",
        "stage": "validation",
        "retryable": False,
        "details": {
            "field": "audio_url",
            "reason": "exit code 1: the file: Invalid data found when processing input",
        },
    }


def test_a_fault_that_nobody_foresaw_is_told_as_one_and_the_next_job_is_done(
    door: Door, job: Job
) -> None:
    failure = door.do({**job, "metadata": {"fate": "fault"}})

    assert failed(failure) == {
        "error_type": "unknown_error",
        "error_code": "unknown_error",
        "stage": "inference",
        "retryable": False,
        "details": {},
    }
    assert "ZeroDivisionError" in failure["stack_trace"]
    assert_filmed(door, door.do(job), seconds=1)


def test_a_job_that_is_taken_back_leaves_the_engine_and_the_next_is_done(
    door: Door, job: Job, stage: Stage
) -> None:
    unwanted = door.submit({**job, "metadata": stage.directions})
    held = stage.await_engine()
    videos = set(door.out.glob("*"))

    door.cancel(unwanted)
    held.await_end()

    assert_filmed(door, door.do({**job, "musetalk_job_id": "next"}), seconds=1)
    door.assert_cancelled(unwanted)
    assert {video.stem for video in set(door.out.glob("*")) - videos} == {"next"}


@pytest.mark.parametrize("kind", DOORS)
def test_a_job_that_breaks_the_gpu_is_answered_and_its_worker_gets_no_other(
    kind: type[Door], job: Job, tmp_path: Path
) -> None:
    with kind(tmp_path) as door:
        ticket = door.submit({**job, "metadata": {"fate": "break"}})

        assert failed(door.wait(ticket)) == {
            "error_type": "processing_error",
            "error_code": "worker_broken",
            "stage": "inference",
            "retryable": True,
            "details": {},
        }
        door.assert_out_of_service(ticket, job)
