import copy
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import Failure, Job, Phase, Progress, Success, WorkerBroken, handle
from handler.errors import FetchFailed, OutOfMemory
from handler.ports import Clip
from handler.testing import (
    FAKE_FILES,
    FakeClock,
    FakeEngine,
    FakeFetch,
    FakeWorkspace,
    MemoryWebhooks,
    fake_runtime,
)

HOOK = "https://example.com/hook"
MEDIA = dict(zip(("video_url", "audio_url"), FAKE_FILES, strict=True))

texts = st.text(st.characters(), max_size=10)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
#: Sound jobs with one field replaced by anything.
any_job = st.builds(
    lambda field, value: MEDIA | {field: value},
    st.sampled_from(["metadata", *Job.model_fields]) | texts,
    any_json | st.dictionaries(texts, any_json, max_size=3),
)


class ShorteningEngine(FakeEngine):
    """Promises a frame more than it writes."""

    def animate(self, *args: Any) -> Clip:
        clip = super().animate(*args)
        return replace(clip, frames=clip.frames + 1)


class ShrinkingEngine(FakeEngine):
    """Promises a larger picture than it writes."""

    def animate(self, *args: Any) -> Clip:
        clip = super().animate(*args)
        return replace(clip, width=clip.width * 2, height=clip.height * 2)


class GarblingEngine(FakeEngine):
    """Writes what no probe can read."""

    def animate(self, *args: Any) -> Clip:
        clip = super().animate(*args)
        clip.path.write_bytes(b"not a video")
        return clip


def test_a_good_job_ends_as_a_stored_video(job: dict[str, Any]) -> None:
    runtime = fake_runtime(engine=FakeEngine(frames=7))

    result = handle(job, runtime)

    assert isinstance(result, Success)
    assert runtime.store.videos == {"job-123": b"7"}
    assert result.output.frames == 7


def test_one_worker_does_many_jobs(job: dict[str, Any]) -> None:
    runtime = fake_runtime()

    results = [handle(job | {"musetalk_job_id": f"job-{number}"}, runtime) for number in range(3)]

    assert [result.musetalk_job_id for result in results] == ["job-0", "job-1", "job-2"]
    assert list(runtime.store.videos) == ["job-0", "job-1", "job-2"]


def test_a_job_without_an_id_is_stored_under_the_id_it_is_answered_with() -> None:
    runtime = fake_runtime()

    result = handle(MEDIA, runtime)

    assert list(runtime.store.videos) == [result.musetalk_job_id]


def test_a_callers_job_is_not_changed(job: dict[str, Any]) -> None:
    job |= {"metadata": {"tags": ["a"]}, "params": {"crf": 20}}
    before = copy.deepcopy(job)

    handle(job, fake_runtime())

    assert job == before


def test_the_engine_is_given_the_jobs_wishes(job: dict[str, Any]) -> None:
    wishes = {"params": {"bbox_shift": -7}, "sync_mode": "loop"}
    seen = []

    class CuriousEngine(FakeEngine):
        def animate(self, avatar: Any, scene: Any, *args: Any) -> Clip:
            seen.append((scene.face.path.read_bytes(), scene.voice.path.read_bytes(), scene.job))
            return super().animate(avatar, scene, *args)

    handle(job | wishes, fake_runtime(engine=CuriousEngine()))

    [(face, voice, given_job)] = seen
    assert (face, voice) == (b"a face", b"a voice")
    assert given_job == Job.parse(job | wishes)


def test_warnings_reach_the_caller(job: dict[str, Any]) -> None:
    class WarningEngine(FakeEngine):
        def animate(self, *args: Any) -> Clip:
            return replace(super().animate(*args), warnings=("The voice is very quiet.",))

    result = handle(job, fake_runtime(engine=WarningEngine()))

    assert result.warnings == ("The voice is very quiet.",)


@pytest.mark.parametrize("engine", [ShorteningEngine(), ShrinkingEngine(), GarblingEngine()])
def test_a_video_that_is_not_what_was_promised_is_not_delivered(
    job: dict[str, Any], engine: FakeEngine
) -> None:
    runtime = fake_runtime(engine=engine)

    result = handle(job, runtime)

    assert result.error_code == "output_invalid"
    assert result.stage == "postprocessing"
    assert result.error_type == "processing_error"
    assert runtime.store.videos == {}


def test_an_empty_video_is_a_media_error_of_validation(job: dict[str, Any]) -> None:
    runtime = fake_runtime(fetch=FakeFetch(FAKE_FILES | {job["video_url"]: b""}))

    result = handle(job, runtime)

    assert result.error_type == "media_error"
    assert result.error_code == "stream_missing"
    assert result.stage == "validation"


@pytest.mark.parametrize(
    "ports",
    [
        {},
        {"fetch": FakeFetch({})},
        {"engine": FakeEngine(fault=OutOfMemory("Full."))},
        {"engine": FakeEngine(fault=ValueError("A bug."))},
        {"engine": ShorteningEngine()},
    ],
)
def test_nothing_of_a_job_stays_on_the_disk(job: dict[str, Any], ports: dict[str, Any]) -> None:
    workspace = FakeWorkspace()
    runtime = fake_runtime(workspace=workspace, **ports)

    handle(job, runtime)

    [directory] = workspace.lent
    assert not directory.exists()


@pytest.mark.parametrize("fault", [WorkerBroken("The GPU is lost."), KeyboardInterrupt()])
def test_nothing_of_a_job_stays_on_the_disk_of_a_worker_that_dies(
    job: dict[str, Any], fault: BaseException
) -> None:
    workspace = FakeWorkspace()
    runtime = fake_runtime(workspace=workspace, engine=FakeEngine(fault=fault))

    with pytest.raises(type(fault)):
        handle(job, runtime)

    [directory] = workspace.lent
    assert not directory.exists()


def test_a_malformed_job_is_lent_no_workspace() -> None:
    workspace = FakeWorkspace()

    handle({}, fake_runtime(workspace=workspace))

    assert workspace.lent == []


def test_a_disk_that_cannot_be_lent_is_answered_as_a_failure(job: dict[str, Any]) -> None:
    @contextmanager
    def full_disk() -> Iterator[Path]:
        raise OSError(28, "No space left on device")
        yield

    result = handle(job, fake_runtime(workspace=full_disk))

    assert isinstance(result, Failure)
    assert "No space left" in result.error_message


@pytest.mark.parametrize(
    "ports", [{}, {"fetch": FakeFetch({})}, {"engine": FakeEngine(fault=ValueError("A bug."))}]
)
def test_a_webhook_gets_the_very_result_once(job: dict[str, Any], ports: dict[str, Any]) -> None:
    webhooks = MemoryWebhooks()
    runtime = fake_runtime(notify=webhooks, **ports)

    result = handle(job | {"webhook_url": HOOK}, runtime)

    assert webhooks.delivered == [(HOOK, result.to_json())]


def test_a_webhook_hears_of_a_job_whose_worker_broke(job: dict[str, Any]) -> None:
    webhooks = MemoryWebhooks()
    engine = FakeEngine(fault=WorkerBroken("The GPU is lost."))
    runtime = fake_runtime(notify=webhooks, engine=engine)

    with pytest.raises(WorkerBroken) as caught:
        handle(job | {"webhook_url": HOOK}, runtime)

    assert webhooks.delivered == [(HOOK, caught.value.failure.to_json())]


@pytest.mark.parametrize("bad", [{"params": {"crf": 52}}, {"video_url": None}, {"nonsense": 1}])
def test_a_malformed_job_reaches_no_webhook(job: dict[str, Any], bad: dict[str, Any]) -> None:
    webhooks = MemoryWebhooks()

    handle(job | {"webhook_url": HOOK} | bad, fake_runtime(notify=webhooks))

    assert webhooks.delivered == []


def test_a_job_that_asks_for_no_webhook_gets_none(job: dict[str, Any]) -> None:
    webhooks = MemoryWebhooks()

    handle(job, fake_runtime(notify=webhooks))

    assert webhooks.delivered == []


def test_a_webhook_is_told_though_the_listener_broke_at_the_end(job: dict[str, Any]) -> None:
    webhooks = MemoryWebhooks()

    def hang_up(progress: Progress) -> None:
        if progress.phase is Phase.COMPLETED:
            raise ConnectionError("Nobody listens any more.")

    handle(job | {"webhook_url": HOOK}, fake_runtime(notify=webhooks), hang_up)

    [(_, delivered)] = webhooks.delivered
    assert delivered["status"] == "success"


# -- observers -------------------------------------------------------------------------------------


def test_an_observer_is_told_of_every_result_and_its_seconds(job: dict[str, Any]) -> None:
    told: list[tuple[Any, float]] = []
    clock = FakeClock()
    runtime = fake_runtime(
        engine=FakeEngine(clock=clock, seconds=2.0),
        clock=clock,
        observe=lambda result, seconds: told.append((result, seconds)),
    )

    done, refused = handle(job, runtime), handle({}, runtime)

    assert told == [(done, 4.0), (refused, 0.0)]


def test_an_observers_trouble_is_not_the_jobs(job: dict[str, Any]) -> None:
    def stumble(result: Any, seconds: float) -> None:
        raise RuntimeError("the collector is on fire")

    assert handle(job, fake_runtime(observe=stumble)).status == "success"


# -- what is asked and answered --------------------------------------------------------------------


@pytest.mark.parametrize("field", ["video_url", "audio_url"])
def test_media_that_cannot_be_used_are_named_by_their_field(
    job: dict[str, Any], field: str
) -> None:
    fetch = FakeFetch(dict.fromkeys((job["video_url"], job["audio_url"]), b"media"))
    fetch.files[job[field]] = b""

    failure = handle(job, fake_runtime(fetch=fetch))

    assert isinstance(failure, Failure)
    assert failure.details["field"] == field


def test_a_library_that_would_end_the_process_only_ends_the_job(job: dict[str, Any]) -> None:
    class Quitting(FakeEngine):
        def animate(self, *args: Any) -> Clip:
            sys.exit("no licence found")

    failure = handle(job, fake_runtime(engine=Quitting()))

    assert isinstance(failure, Failure)
    assert (failure.error_type, failure.error_message) == ("unknown_error", "no licence found")


@pytest.mark.parametrize("fetch", [FakeFetch(FAKE_FILES), FakeFetch({})])
def test_metadata_is_handed_back_untouched(job: dict[str, Any], fetch: FakeFetch) -> None:
    note = {"user": {"id": 7}, "page": "https://example.com/?page=2", "none": None, "f": 0.1}

    result = handle(job | {"metadata": note}, fake_runtime(fetch=fetch))

    assert result.to_json()["metadata"] == note


def test_a_job_that_was_refused_once_may_be_tried_again(job: dict[str, Any]) -> None:
    files = dict(FAKE_FILES)
    outages = [FetchFailed("The host hung up.")]

    def fetch(*args: Any) -> Any:
        if outages:
            raise outages.pop()
        return FakeFetch(files)(*args)

    runtime = fake_runtime(fetch=fetch)

    results = [handle(job, runtime), handle(job, runtime)]

    assert [result.status for result in results] == ["failed", "success"]


@given(body=any_json | any_job)
def test_whatever_comes_in_is_answered_with_a_result(body: Any) -> None:
    result = handle(body, fake_runtime())

    assert isinstance(result, Success | Failure)


@pytest.mark.parametrize(
    "note",
    [
        {"half a character": "\ud83d"},
        {"\udc00": "half a character"},
        {"not a number": float("nan")},
        {"without end": [float("inf")]},
    ],
)
def test_metadata_that_no_json_can_hold_does_not_cost_the_caller_the_answer(
    job: dict[str, Any], note: dict[str, Any]
) -> None:
    result = handle(job | {"metadata": note}, fake_runtime()).to_json()

    assert sent(result) == result


@given(note=st.dictionaries(texts, any_json, max_size=5))
def test_whatever_the_metadata_the_answer_can_be_sent(note: dict[str, Any]) -> None:
    result = handle(MEDIA | {"metadata": note}, fake_runtime()).to_json()

    assert sent(result) == result


def test_an_error_about_an_undecodable_file_name_can_be_sent(job: dict[str, Any]) -> None:
    file_name = b"caf\xe9.mp4".decode(errors="surrogateescape")
    fault = FileNotFoundError(f"No such file: {file_name}")
    runtime = fake_runtime(engine=FakeEngine(fault=fault))

    result = handle(job, runtime).to_json()

    assert sent(result) == result


def sent(wire: dict[str, Any]) -> Any:
    """Send JSON as strict web frameworks do: in UTF-8, and without NaN."""
    return json.loads(json.dumps(wire, ensure_ascii=False, allow_nan=False).encode())
