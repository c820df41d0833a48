from collections.abc import Callable
from pathlib import Path
from typing import Any, Never

import pytest

from handler import Failure, errors, handle
from handler.errors import (
    Cancelled,
    ErrorType,
    FaceNotFound,
    FetchFailed,
    MediaUnreadable,
    OutOfMemory,
    OutputInvalid,
    ProcessingError,
    SourceUnavailable,
    Stage,
    StoreFailed,
    ToolMissing,
    WorkerBroken,
    WorkerError,
)
from handler.testing import FakeEngine, FakeFetch, FakeProbe, MemoryStore, fake_runtime

FAULTS = [
    fault
    for fault in vars(errors).values()
    if isinstance(fault, type) and issubclass(fault, Exception)
]
JOB_FAULTS = [fault for fault in FAULTS if issubclass(fault, WorkerError)]
BASES = {WorkerError, errors.MediaError, ProcessingError}


class Unforeseen(Exception):
    """What no port ever promised to raise."""


def fail(*_: object) -> Never:
    raise Unforeseen("This was not foreseen.")


class BrokenProbe(FakeProbe):
    voice = staticmethod(fail)


class BlindProbe(FakeProbe):
    output = staticmethod(fail)


class BrokenEngine(FakeEngine):
    prepare = staticmethod(fail)


class FacelessEngine(FakeEngine):
    def prepare(self, *_: object) -> Never:
        raise FaceNotFound("No face was found.")


#: For each stage: the port that breaks there.
BROKEN: dict[str, dict[str, Any]] = {
    "download": {"fetch": fail},
    "validation": {"probe": BrokenProbe()},
    "preprocessing": {"engine": BrokenEngine()},
    "inference": {"engine": FakeEngine(fault=Unforeseen("This was not foreseen."))},
    "postprocessing": {"probe": BlindProbe()},
    "upload": {"store": fail},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_says_to_a_user_what_it_means(fault: type[Exception]) -> None:
    sentence = (vars(fault).get("__doc__") or "").partition("\n")[0]

    assert sentence.endswith((".", ":")), f"{fault.__name__} has no sentence of its own"


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_of_a_type_the_contract_knows(fault: type[WorkerError]) -> None:
    known = {"media_error", "processing_error", "cancelled"}

    assert fault.error_type in known


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_a_code_that_programs_can_read(fault: type[WorkerError]) -> None:
    words = fault.error_code.split("_")

    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)


def test_no_two_faults_share_a_code() -> None:
    codes = [fault.error_code for fault in FAULTS if fault not in BASES]

    assert sorted(codes) == sorted(set(codes))
    assert not {base.error_code for base in BASES} & set(codes)


def test_what_the_caller_must_mend_is_never_retryable() -> None:
    theirs = [fault for fault in JOB_FAULTS if fault.error_type is ErrorType.MEDIA]

    retryable = [fault for fault in theirs if fault.retryable]

    assert len(theirs) > 5
    assert retryable == []


def test_the_tree_at_the_top_of_the_module_shows_every_fault() -> None:
    lines = [line.split() for line in errors.__doc__.splitlines()]

    drawn = {words[1] for words in lines if words and words[0] in {"*", "x", "+"}}

    assert drawn == {fault.__name__ for fault in FAULTS}


def test_a_job_whose_video_is_gone_fails_as_media_error(
    job: dict[str, Any], contract: Callable[[str], dict[str, Any]]
) -> None:
    expected = contract("media_error")
    runtime = fake_runtime(fetch=FakeFetch({}))

    result = handle(job, runtime).to_json()

    assert result | expected == result
    assert "stack_trace" not in result
    assert result["error_code"] == "download_failed"
    assert result["musetalk_job_id"] == "job-123"
    assert result["worker"]["worker_id"] == "fake"
    assert result["metadata"] == {}


def test_a_job_whose_audio_is_gone_fails_with_the_audios_url(job: dict[str, Any]) -> None:
    runtime = fake_runtime(fetch=FakeFetch({job["video_url"]: b"a face"}))

    result = handle(job, runtime)

    assert result.details == {"url": job["audio_url"], "status_code": 404}


def test_a_job_too_large_for_the_gpu_fails_as_the_contract_says(
    job: dict[str, Any], contract: Callable[[str], dict[str, Any]]
) -> None:
    expected = contract("processing_error")
    fault = OutOfMemory("Inference failed: CUDA out of memory")
    runtime = fake_runtime(engine=FakeEngine(fault=fault))

    result = handle(job, runtime).to_json()

    for field in ("stack_trace", "stage_times"):
        assert result[field].__class__ is expected.pop(field).__class__
    assert result | expected == result
    assert result["error_code"] == "out_of_memory"
    assert result["stack_trace"].startswith("Traceback")


def test_a_bug_is_an_unknown_error_that_nobody_retries(job: dict[str, Any]) -> None:
    runtime = fake_runtime(engine=BrokenEngine())

    result = handle(job, runtime).to_json()

    assert result["error_type"] == "unknown_error"
    assert result["error_code"] == "unknown_error"
    assert result["error_message"] == "This was not foreseen."
    assert result["retryable"] is False
    assert result["details"] == {}
    assert "in fail\n" in result["stack_trace"]


def test_a_bug_without_a_message_is_known_by_its_name(job: dict[str, Any]) -> None:
    runtime = fake_runtime(engine=FakeEngine(fault=Unforeseen()))

    result = handle(job, runtime)

    assert result.error_message == "Unforeseen"


def test_a_strangers_exception_cannot_pass_for_one_of_ours(job: dict[str, Any]) -> None:
    stranger = Unforeseen("A library broke.")
    stranger.error_type = "rate_limit"
    stranger.error_code = 1234
    stranger.retryable = True
    runtime = fake_runtime(engine=FakeEngine(fault=stranger))

    result = handle(job, runtime)

    assert result.error_type is ErrorType.UNKNOWN
    assert result.error_code == "unknown_error"
    assert result.retryable is False


@pytest.mark.parametrize(
    "value",
    [OSError("refused"), Path("face.bin"), {"a", "b"}, b"\xff"],
    ids=["error", "path", "set", "bytes"],
)
def test_details_that_are_not_json_do_not_lose_the_failure(
    job: dict[str, Any], value: object
) -> None:
    fault = FetchFailed("The host hung up.", reason=value)
    runtime = fake_runtime(engine=FakeEngine(fault=fault))

    result = handle(job, runtime)

    assert result.error_code == "fetch_failed"


@pytest.mark.parametrize(
    ("fault", "retryable"),
    [
        (SourceUnavailable("The host is not allowed."), False),
        (MediaUnreadable("This is a text."), False),
        (FetchFailed("The host hung up."), True),
        (OutOfMemory("Full."), True),
        (OutputInvalid("Cut short."), True),
        (ToolMissing("No ffmpeg."), False),
        (StoreFailed("The bucket is away."), True),
        (StoreFailed("The bucket is not ours.", retryable=False), False),
        (ProcessingError("Something broke."), True),
        (Cancelled("Taken back."), False),
    ],
)
def test_a_failure_says_whether_to_try_again(
    job: dict[str, Any], *, fault: WorkerError, retryable: bool
) -> None:
    runtime = fake_runtime(engine=FakeEngine(fault=fault))

    result = handle(job, runtime)

    assert result.retryable is retryable


@pytest.mark.parametrize("fault", JOB_FAULTS)
def test_a_stack_trace_is_there_only_where_the_worker_is_at_fault(
    job: dict[str, Any], fault: type[WorkerError]
) -> None:
    runtime = fake_runtime(engine=FakeEngine(fault=fault("It happened.")))

    result = handle(job, runtime)

    assert ("stack_trace" in result.to_json()) == (result.http_status == 500)


@pytest.mark.parametrize("stage", BROKEN)
def test_the_stage_of_a_failure_is_where_it_was_raised(job: dict[str, Any], stage: str) -> None:
    runtime = fake_runtime(**BROKEN[stage])

    result = handle(job, runtime)

    assert result.stage == stage


@pytest.mark.parametrize("engine", [FacelessEngine(), FakeEngine(fault=FaceNotFound("None."))])
def test_a_missing_face_belongs_to_preprocessing_whoever_missed_it(
    job: dict[str, Any], engine: FakeEngine
) -> None:
    runtime = fake_runtime(engine=engine)

    result = handle(job, runtime)

    assert result.stage is Stage.PREPROCESSING
    assert result.error_code == "face_not_found"


def test_a_fault_may_know_its_stage_better(job: dict[str, Any]) -> None:
    fault = ProcessingError("The encoder died.", stage=Stage.POSTPROCESSING)
    runtime = fake_runtime(engine=FakeEngine(fault=fault))

    result = handle(job, runtime)

    assert result.stage is Stage.POSTPROCESSING


@pytest.mark.parametrize(
    ("stage", "finished"),
    [
        ("download", []),
        ("validation", ["download"]),
        ("preprocessing", ["download", "validation"]),
        ("inference", ["download", "validation"]),
        ("upload", ["download", "validation", "inference"]),
    ],
)
def test_a_failure_times_only_the_stages_that_were_finished(
    job: dict[str, Any], stage: str, finished: list[str]
) -> None:
    runtime = fake_runtime(**BROKEN[stage])

    result = handle(job, runtime)

    assert list(result.stage_times) == finished


def test_a_malformed_job_is_a_media_error_of_the_one_shape(job: dict[str, Any]) -> None:
    bad = job | {"params": {"crf": 52}}

    result = handle(bad, fake_runtime()).to_json()

    assert result["error_type"] == "media_error"
    assert result["error_code"] == "invalid_job"
    assert result["stage"] == "validation"
    assert result["details"]["field"] == "params.crf"
    assert result["retryable"] is False
    assert result["stage_times"] == {}
    assert result["musetalk_job_id"] == "job-123"
    assert "stack_trace" not in result


@pytest.mark.parametrize("body", [[], "job", None, {}, {"musetalk_job_id": "a/b"}])
def test_a_body_that_is_no_job_at_all_is_answered_all_the_same(body: Any) -> None:
    result = handle(body, fake_runtime())

    assert isinstance(result, Failure)
    assert result.error_code == "invalid_job"
    assert result.musetalk_job_id is None


@pytest.mark.parametrize("place", ["fetch", "store"])
def test_a_broken_worker_says_so_and_still_answers_the_job(job: dict[str, Any], place: str) -> None:
    def break_down(*_: object) -> Never:
        raise WorkerBroken("The GPU fell off the bus.")

    runtime = fake_runtime(**{place: break_down})

    with pytest.raises(WorkerBroken) as caught:
        handle(job, runtime)

    failure = caught.value.failure.to_json()
    assert failure["error_type"] == "processing_error"
    assert failure["error_code"] == "worker_broken"
    assert failure["error_message"] == "The GPU fell off the bus."
    assert failure["retryable"] is True
    assert failure["musetalk_job_id"] == "job-123"
    assert "break_down" in failure["stack_trace"]


def test_a_broken_worker_is_not_a_failure_of_the_job() -> None:
    roots = WorkerBroken.__mro__

    assert WorkerError not in roots


def test_a_failed_job_leaves_the_worker_fit_for_the_next(job: dict[str, Any]) -> None:
    store = MemoryStore()
    broken, sound = (
        fake_runtime(store=store, engine=engine) for engine in (BrokenEngine(), FakeEngine())
    )

    results = [handle(job, broken), handle(job, sound)]

    assert [result.status for result in results] == ["failed", "success"]
    assert list(store.videos) == ["job-123"]
