"""A store that fails, for a while or for ever: cases 39 and 40 of the reliability notes."""

from __future__ import annotations

import time

import pytest

from handler import Failure, Success, handle
from tests.delivery.service import (
    BUCKET,
    Act,
    Fault,
    Service,
    damage,
    forget_answer,
    hang,
    refuse,
    reset,
)
from tests.delivery.worker import JOB, PART_BYTES, TakeEngine, bucket_runtime

BUSY = refuse(503, "SlowDown")


@pytest.mark.parametrize("compares", [True, False])
@pytest.mark.parametrize("name", [".mp4", ".json"])
@pytest.mark.parametrize(("act", "times"), [(BUSY, 2), (reset, 1), (damage, 1), (forget_answer, 1)])
def test_what_passes_is_waited_out(
    service: Service, act: Act, times: int, name: str, *, compares: bool
) -> None:
    service.compares = compares
    service.faults = [Fault("PUT", name, act, times)]

    result = handle(JOB, bucket_runtime(service.url))
    again = handle(JOB, bucket_runtime(service.url))

    assert isinstance(result, Success), result
    assert not result.replayed
    assert again.replayed
    assert service.sha256("job-7") == result.output.sha256 == service.record("job-7").sha256
    assert service.faults[0].times == 0


@pytest.mark.parametrize("act", [BUSY, reset, damage, forget_answer])
def test_a_large_video_whose_part_fails_once_arrives_whole(service: Service, act: Act) -> None:
    service.faults = [Fault("PUT", "partNumber=2", act), Fault("POST", "uploadId", BUSY)]
    runtime = bucket_runtime(service.url, engine=TakeEngine(2 * PART_BYTES + 7))

    result = handle(JOB, runtime)

    assert isinstance(result, Success), result
    assert service.sha256("job-7") == result.output.sha256
    assert result.metrics.attempts["upload"] == 2
    assert service.unfinished() == []


@pytest.mark.parametrize(
    ("code", "word", "variable"),
    [
        (403, "AccessDenied", "writeFiles"),
        (403, "InvalidAccessKeyId", "B2_KEY_ID"),
        (403, "SignatureDoesNotMatch", "B2_APP_KEY"),
        (404, "NoSuchBucket", "B2_BUCKET_NAME"),
    ],
)
def test_what_only_somebody_can_put_right_is_not_tried_again(
    service: Service, code: int, word: str, variable: str
) -> None:
    service.faults = [Fault(method, "", refuse(code, word), 99) for method in ("GET", "PUT")]

    result = handle(JOB, bucket_runtime(service.url))

    assert isinstance(result, Failure)
    assert (result.error_type, result.stage) == ("processing_error", "upload")
    assert (result.error_code, result.retryable) == ("store_failed", False)
    assert variable in result.error_message


def test_a_key_or_bucket_that_is_wrong_is_told_before_the_gpu_has_worked(service: Service) -> None:
    service.faults = [Fault("GET", "", refuse(403, "InvalidAccessKeyId"), 99)]
    engine = TakeEngine()

    handle(JOB, bucket_runtime(service.url, engine=engine))

    assert engine.takes == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_store_that_never_recovers_fails_the_job_for_another_try(
    service: Service, method: str
) -> None:
    service.faults = [Fault(method, "", BUSY, 99)]

    result = handle(JOB, bucket_runtime(service.url))
    service.faults.clear()
    again = handle(JOB, bucket_runtime(service.url))

    assert isinstance(result, Failure)
    assert (result.error_type, result.stage, result.retryable) == (
        "processing_error",
        "upload",
        True,
    )
    assert "failed after 4 tries" in result.error_message
    assert again.status == "success"


@pytest.mark.parametrize(
    "target", ["partNumber=2", "uploadId"], ids=["a part", "putting the parts together"]
)
def test_an_upload_that_fails_for_good_leaves_nothing_to_see_nor_to_pay_for(
    service: Service, target: str
) -> None:
    service.faults = [Fault(method, target, BUSY, 99) for method in ("PUT", "POST")]
    runtime = bucket_runtime(service.url, engine=TakeEngine(2 * PART_BYTES))

    result = handle(JOB, runtime)

    assert isinstance(result, Failure)
    assert (result.stage, result.retryable) == ("upload", True)
    assert service.names() == []
    assert service.unfinished() == []


def test_an_upload_past_the_deadline_ends_there(service: Service) -> None:
    def slow(door: object) -> bool:
        time.sleep(0.6)
        return False

    service.faults = [Fault("PUT", "partNumber", slow, 99)]
    runtime = bucket_runtime(service.url, engine=TakeEngine(3 * PART_BYTES), clock=time.monotonic)

    result = handle(JOB | {"deadline_seconds": 1}, runtime)

    assert isinstance(result, Failure)
    assert (result.error_code, result.stage, result.retryable) == (
        "deadline_exceeded",
        "upload",
        True,
    )
    assert service.names() == []
    assert service.unfinished() == []


@pytest.mark.parametrize(
    ("deaf", "left"),
    [([], []), ([Fault("DELETE", "uploadId", hang)], ["out/job-7.mp4"])],
    ids=["in its upload", "and when it is told to forget it"],
)
def test_a_store_that_stands_still_cannot_outlast_the_deadline(
    service: Service, deaf: list[Fault], left: list[str]
) -> None:
    service.faults = [Fault("PUT", "partNumber=2", hang), *deaf]
    runtime = bucket_runtime(service.url, engine=TakeEngine(2 * PART_BYTES), clock=time.monotonic)
    began = time.monotonic()

    result = handle(JOB | {"deadline_seconds": 1}, runtime)

    assert time.monotonic() - began < 1 + 10
    assert isinstance(result, Failure)
    assert (result.error_code, result.stage) == ("deadline_exceeded", "upload")
    assert service.names() == []
    assert service.unfinished() == left


def test_a_video_without_a_record_is_used_by_the_next_delivery(service: Service) -> None:
    service.faults = [Fault("PUT", ".json", BUSY, 4)]

    result = handle(JOB, bucket_runtime(service.url))
    orphan = service.sha256("job-7")
    again = handle(JOB, bucket_runtime(service.url))

    assert isinstance(result, Failure)
    assert isinstance(again, Success)
    assert orphan == again.output.sha256 == service.sha256("job-7")


def test_a_video_that_is_nobodys_is_replaced(service: Service) -> None:
    """The predecessor's, or that of a job with other media which never was told of."""
    service.client.put_object(Bucket=BUCKET, Key="out/job-7.mp4", Body=b"old")

    result = handle(JOB, bucket_runtime(service.url))

    assert isinstance(result, Success)
    assert service.sha256("job-7") == result.output.sha256


@pytest.mark.parametrize("answer", [501, 400, 200])
def test_a_store_that_does_not_know_conditions_is_found_out_once(
    service: Service, answer: int
) -> None:
    service.compares, service.otherwise = False, answer
    runtime = bucket_runtime(service.url)

    results = [handle(JOB | {"musetalk_job_id": f"job-{n}"}, runtime) for n in range(3)]

    probes = {path for method, path in service.seen if method == "PUT" and ".probe-" in path}
    assert [result.status for result in results] == ["success"] * 3
    assert len(probes) == 1
    assert [name for name in service.names() if "probe" in name] == []
