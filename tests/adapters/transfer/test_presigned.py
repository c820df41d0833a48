from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.transfer.guard import Policy
from adapters.transfer.presigned import PresignedStore
from adapters.transfer.retry import Retry
from handler.errors import Cancelled, DeadlineExceeded, StoreFailed
from handler.job import Job
from handler.ports import Stored
from tests.adapters.transfer.downloads import Deadline
from tests.adapters.transfer.loopback import HOST, Site, mute, serving, silent, status

JobOf = Callable[..., Job]

POLICY = Policy(allow_http=True, private_hosts=frozenset({HOST}))
GET_URL = "https://cdn.test/a.mp4?token=for-the-caller"
#: What the system takes in though nobody reads it is less.
LARGER_THAN_ANY_BUFFER_BYTES = 32 * 1024**2
SECRET = "X-Amz-Signature=5ecre7"


def test_a_video_goes_where_the_caller_has_presigned_a_place(
    s3: Any, video: Path, make_job: JobOf
) -> None:
    put_url = s3.generate_presigned_url("put_object", {"Bucket": "videos", "Key": "a.mp4"})

    stored = _store()(video, make_job(output={"put_url": put_url, "get_url": GET_URL}), _ignore)

    kept = s3.get_object(Bucket="videos", Key="a.mp4")
    assert kept["Body"].read() == video.read_bytes()
    assert kept["ContentType"] == "video/mp4"
    assert stored == Stored(GET_URL, 1)


def test_the_upload_says_its_size_and_tells_how_far_it_is(video: Path, make_job: JobOf) -> None:
    fractions: list[float] = []
    with serving(status(201)) as site:
        _store()(video, _presigned(make_job, site), fractions.append)

    assert site.seen[0].method == "PUT"
    assert site.seen[0].target == f"/a.mp4?{SECRET}"
    assert site.seen[0].headers["content-length"] == str(1024**2)
    assert site.seen[0].body == video.read_bytes()
    assert fractions == sorted(fractions)
    assert len(set(fractions)) > 3
    assert fractions[-1] == 1.0


def test_a_store_that_recovers_gets_the_whole_video(video: Path, make_job: JobOf) -> None:
    with serving(status(503), status(500), status(200)) as site:
        stored = _store()(video, _presigned(make_job, site), _ignore)

    assert stored.attempts == 3
    assert site.seen[2].body == video.read_bytes()


@pytest.mark.parametrize("code", [302, 400, 403, 404])
def test_a_place_that_is_refused_is_not_tried_again(
    code: int, video: Path, make_job: JobOf
) -> None:
    with serving(status(code)) as site:
        failure = _failure(video, _presigned(make_job, site))

    assert not failure.retryable
    assert failure.details == {"url": f"{site.url}/a.mp4", "status_code": code}
    assert len(site.seen) == 1


def test_a_store_that_never_recovers_may_be_tried_elsewhere(video: Path, make_job: JobOf) -> None:
    with serving(status(503)) as site:
        failure = _failure(video, _presigned(make_job, site))

    assert failure.retryable
    assert failure.message == "Upload failed after 4 tries: 503 Service Unavailable"
    assert failure.details["status_code"] == 503
    assert len(site.seen) == 4


def test_a_store_that_says_nothing_is_given_up(video: Path, make_job: JobOf) -> None:
    with serving(silent) as site:
        failure = _failure(video, _presigned(make_job, site), stall_seconds=0.05)

    assert failure.details["reason"] == "the server stood still for 0.05 s"


def test_a_video_is_not_sent_into_the_workers_own_network(video: Path, make_job: JobOf) -> None:
    output = {"put_url": f"http://{HOST}/a.mp4", "get_url": GET_URL}

    failure = _failure(video, make_job(output=output), policy=Policy(allow_http=True))

    assert failure.message == f"Upload failed: '{HOST}' is not a public host"
    assert not failure.retryable


@pytest.mark.parametrize("code", [403, 503])
def test_the_signature_of_a_place_is_never_repeated(
    code: int, video: Path, make_job: JobOf
) -> None:
    with serving(status(code)) as site:
        failure = _failure(video, _presigned(make_job, site))

    assert "5ecre7" not in failure.message + json.dumps(failure.details)


def test_a_job_that_is_taken_back_is_not_uploaded(video: Path, make_job: JobOf) -> None:
    def tick(fraction: float) -> None:
        if fraction > 0.5:
            raise Cancelled("stop")

    with serving(status(200)) as site:
        with pytest.raises(Cancelled):
            _store()(video, _presigned(make_job, site), tick)

    assert all(len(request.body) < video.stat().st_size for request in site.seen)


def test_a_store_that_takes_nothing_cannot_outlast_the_deadline(
    tmp_path: Path, make_job: JobOf
) -> None:
    deadline = Deadline(seconds=0.2)
    video = tmp_path / "long.mp4"
    with video.open("wb") as file:
        file.truncate(LARGER_THAN_ANY_BUFFER_BYTES)

    with mute() as port:
        output = {"put_url": f"http://{HOST}:{port}/a.mp4", "get_url": GET_URL}
        with pytest.raises(DeadlineExceeded):
            _store()(video, make_job(output=output), deadline)

    assert deadline.seconds_over < 1


def test_a_store_that_stops_taking_is_given_up(tmp_path: Path, make_job: JobOf) -> None:
    video = tmp_path / "long.mp4"
    with video.open("wb") as file:
        file.truncate(LARGER_THAN_ANY_BUFFER_BYTES)

    with mute() as port:
        output = {"put_url": f"http://{HOST}:{port}/a.mp4?{SECRET}", "get_url": GET_URL}
        failure = _failure(video, make_job(output=output), stall_seconds=0.05)

    assert failure.retryable
    assert failure.details == {
        "url": f"http://{HOST}:{port}/a.mp4",
        "reason": "the server stood still for 0.05 s",
    }


def test_a_job_without_a_place_goes_to_the_workers_store(video: Path, make_job: JobOf) -> None:
    def bucket(video: Path, job: Job, tick: Any) -> Stored:
        return Stored("https://bucket.test/a.mp4")

    stored = PresignedStore(POLICY, bucket, stall_seconds=5)(
        video, make_job(output={"key": "a.mp4"}), _ignore
    )

    assert stored.url == "https://bucket.test/a.mp4"


def test_a_worker_without_a_store_says_what_to_do(video: Path, make_job: JobOf) -> None:
    failure = _failure(video, make_job())

    assert "send output.put_url and output.get_url" in failure.message
    assert not failure.retryable


def _store(*, policy: Policy = POLICY, stall_seconds: float = 5.0) -> PresignedStore:
    slept: list[float] = []
    return PresignedStore(policy, stall_seconds=stall_seconds, retry=Retry(sleep=slept.append))


def _failure(video: Path, job: Job, **options: Any) -> StoreFailed:
    with pytest.raises(StoreFailed) as failure:
        _store(**options)(video, job, _ignore)
    return failure.value


def _presigned(make_job: JobOf, site: Site) -> Job:
    return make_job(output={"put_url": f"{site.url}/a.mp4?{SECRET}", "get_url": GET_URL})


def _ignore(fraction: float) -> None:
    """Take no interest."""
