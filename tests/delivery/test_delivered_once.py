"""A job that comes twice: cases 42, 44 and 45 of the reliability notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from handler import Failure, Success, handle, read_result
from handler.errors import Cancelled
from handler.progress import Progress
from handler.testing import FAKE_FILES, FakeFetch, MemoryWebhooks
from tests.delivery.service import BUCKET, PREFIX, Fault, Service, refuse
from tests.delivery.worker import (
    JOB,
    OTHER_JOB,
    Make,
    TakeEngine,
    bucket_runtime,
    directory_runtime,
)


def test_a_job_delivered_twice_costs_no_second_engine_run_nor_download(make: Make) -> None:
    first = handle(JOB, make())
    engine = TakeEngine()

    second = handle(JOB, make(engine=engine, fetch=FakeFetch({})))

    assert isinstance(first, Success)
    assert isinstance(second, Success)
    assert engine.takes == 0
    assert not first.replayed
    assert second == first.model_copy(update={"replayed": True})


def test_a_result_that_was_lost_on_its_way_is_told_again(make: Make) -> None:
    webhooks = MemoryWebhooks()
    handle(JOB, make())

    told = handle(JOB | {"webhook_url": "https://example.com/hook"}, make(notify=webhooks))

    assert told.status == "success"
    assert webhooks.delivered == [("https://example.com/hook", told.to_json())]


def test_a_replayed_result_carries_the_metadata_of_the_job_it_answers(make: Make) -> None:
    handle(JOB | {"metadata": {"try": 1}}, make())

    second = handle(JOB | {"metadata": {"try": 2}}, make())

    assert (second.status, second.metadata) == ("success", {"try": 2})


def test_signatures_and_deadlines_may_differ_from_one_delivery_to_the_next(make: Make) -> None:
    signed = {"video_url": f"{JOB['video_url']}?sig=1"}
    files = FAKE_FILES | {signed["video_url"]: b"a face"}
    handle(JOB | signed, make(fetch=FakeFetch(files)))

    second = handle(JOB | {"deadline_seconds": 60}, make())

    assert isinstance(second, Success)
    assert second.replayed


def test_an_id_that_belongs_to_another_job_is_refused_before_anything_is_done(make: Make) -> None:
    first = handle(JOB, make())
    engine = TakeEngine()

    other = handle(OTHER_JOB, make(engine=engine, fetch=FakeFetch({})))
    again = handle(JOB, make())

    assert isinstance(other, Failure)
    assert (other.error_type, other.error_code) == ("processing_error", "idempotency_conflict")
    assert (other.stage, other.retryable) == ("validation", False)
    assert engine.takes == 0
    assert again == first.model_copy(update={"replayed": True})


def test_an_id_that_belongs_to_another_job_is_free_once_that_one_failed(make: Make) -> None:
    handle(JOB, make(fetch=FakeFetch({})))

    other = handle(OTHER_JOB, make())

    assert isinstance(other, Success)
    assert not other.replayed


def test_a_job_that_is_taken_back_when_its_video_is_stored_is_not_on_record(make: Make) -> None:
    def take_back(progress: Progress) -> None:
        if progress.fraction >= 0.99:
            raise Cancelled("taken back")

    taken_back = handle(JOB, make(), take_back)
    again = handle(JOB, make())

    assert taken_back.error_code == "cancelled"
    assert isinstance(again, Success)
    assert not again.replayed


def test_the_jobs_own_place_is_remembered_too(make: Make) -> None:
    job = JOB | {"output": {"key": "eu/mine.mp4"}}
    first = handle(job, make())

    second = handle(job, make())
    elsewhere = handle(JOB, make())

    assert second == first.model_copy(update={"replayed": True})
    assert elsewhere.error_code == "idempotency_conflict"


def test_the_record_is_the_result_for_whoever_reads_the_bucket(service: Service) -> None:
    result = handle(JOB, bucket_runtime(service.url))

    kept = json.loads(service.read("out/job-7.json"))

    assert read_result(kept) == result
    assert kept["musetalk_job_id"] == "job-7"
    assert service.sha256("job-7") == kept["output"]["sha256"]
    head = service.client.head_object(Bucket=BUCKET, Key="out/job-7.json")
    assert head["ContentType"] == "application/json"


def test_nothing_but_the_video_and_its_record_is_left_in_the_bucket(service: Service) -> None:
    handle(JOB, bucket_runtime(service.url))

    assert service.names() == ["out/job-7.json", "out/job-7.mp4"]


def test_nothing_but_the_video_and_its_record_is_left_in_a_directory(tmp_path: Path) -> None:
    handle(JOB, directory_runtime(tmp_path / "out"))

    kept = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert kept == ["job-7.json", "job-7.mp4"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"job-7"',
        b"\xff",
        b'{"record_format": 1, "musetalk_job_id": "job-7", "fingerprint": "f"}',
        b'{"record_format": 2, "musetalk_job_id": "job-7"}',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("compares", [True, False])
def test_what_is_no_record_costs_nobody_the_job(
    service: Service, content: bytes, *, compares: bool
) -> None:
    service.compares = compares
    service.client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/job-7.json", Body=content)

    result = handle(JOB, bucket_runtime(service.url))

    assert isinstance(result, Success)
    assert service.record("job-7").success == result


def test_a_record_of_a_format_to_come_is_not_misread(service: Service) -> None:
    first = handle(JOB, bucket_runtime(service.url))
    newer = json.loads(service.read("out/job-7.json")) | {"record_format": 2}
    body = json.dumps(newer).encode()
    service.client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/job-7.json", Body=body)

    second = handle(JOB, bucket_runtime(service.url))

    assert isinstance(second, Success)
    assert not second.replayed
    assert second.output.sha256 == first.output.sha256 == service.sha256("job-7")


def test_a_record_of_another_job_is_not_this_ones(service: Service) -> None:
    handle(JOB, bucket_runtime(service.url))
    copied = service.read("out/job-7.json")
    service.client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/job-8.json", Body=copied)

    other = handle(JOB | {"musetalk_job_id": "job-8"}, bucket_runtime(service.url))

    assert (other.status, other.musetalk_job_id) == ("success", "job-8")
    assert not other.replayed


def test_a_record_whose_video_is_gone_brings_it_back(service: Service) -> None:
    handle(JOB, bucket_runtime(service.url))
    service.client.delete_object(Bucket=BUCKET, Key="out/job-7.mp4")

    again = handle(JOB, bucket_runtime(service.url))

    assert isinstance(again, Success)
    assert not again.replayed
    assert service.sha256("job-7") == again.output.sha256 == service.record("job-7").sha256


def test_a_record_in_a_directory_whose_video_is_gone_brings_it_back(tmp_path: Path) -> None:
    handle(JOB, directory_runtime(tmp_path))
    (tmp_path / "job-7.mp4").unlink()

    again = handle(JOB, directory_runtime(tmp_path))

    assert isinstance(again, Success)
    assert not again.replayed
    assert (tmp_path / "job-7.mp4").exists()


def test_a_caller_who_brings_a_place_is_served_anew_each_time(service: Service) -> None:
    presigned = {"put_url": "https://theirs.test/put", "get_url": "https://theirs.test/get"}
    job: dict[str, Any] = JOB | {"output": presigned}
    own = bucket_runtime(service.url)
    runtime = bucket_runtime(service.url, store=own.store)

    results = [handle(job, runtime) for _ in range(2)]

    assert [result.replayed for result in results] == [False, False]
    assert "out/job-7.json" not in service.names()


def test_a_key_that_cannot_tell_what_is_not_there_still_does_jobs(service: Service) -> None:
    """As AWS answers a key without ListBucket."""
    service.faults = [
        Fault("GET", ".json", refuse(403, "AccessDenied"), times=2),
        Fault("HEAD", ".mp4", refuse(403, "AccessDenied")),
    ]

    result = handle(JOB, bucket_runtime(service.url))

    assert isinstance(result, Success)
