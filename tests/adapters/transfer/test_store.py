from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.transfer.bucket import Bucket, s3_client
from adapters.transfer.records import S3Records
from adapters.transfer.retry import Retry
from adapters.transfer.store import S3Store
from handler.errors import Cancelled, StoreFailed
from handler.fingerprint import fingerprint
from handler.job import Job
from tests.adapters.transfer.loopback import Answer, body, serving, status

JobOf = Callable[..., Job]

#: The least that S3 takes for a part that is not the last.
PART_BYTES = 5 * 1024**2
#: What a store says that has no such video yet, and pays no heed to conditions.
NEW_STORE = (status(404), status(200, ETag='"e"'), status(200, ETag='"e"'))


@pytest.fixture
def large_video(tmp_path: Path) -> Path:
    path = tmp_path / "large.mp4"
    path.write_bytes(bytes(range(256)) * (2 * PART_BYTES // 256) + b"the rest")
    return path


def test_a_video_is_stored_under_its_jobs_name(s3: Any, video: Path, make_job: JobOf) -> None:
    fractions: list[float] = []

    stored = _store_in(s3, "avatar/outputs")(video, make_job(), fractions.append)

    kept = s3.get_object(Bucket="videos", Key="avatar/outputs/job-7.mp4")
    assert kept["Body"].read() == video.read_bytes()
    assert kept["ContentType"] == "video/mp4"
    assert stored.url == "https://f000.backblazeb2.com/file/videos/avatar/outputs/job-7.mp4"
    assert stored.attempts == 1
    assert fractions[-1] == 1.0


def test_a_job_may_name_its_own_place(s3: Any, video: Path, make_job: JobOf) -> None:
    store = _store_in(s3, "avatar/outputs", template="https://{bucket}.cdn.test/{key}")

    stored = store(video, make_job(output={"key": "eu/a:b.mp4"}), _ignore)

    assert s3.head_object(Bucket="videos", Key="eu/a:b.mp4")["ContentLength"] == 1024**2
    assert stored.url == "https://videos.cdn.test/eu/a:b.mp4"


@pytest.mark.parametrize(("prefix", "key"), [("", "job-7.mp4"), ("/a/b/", "a/b/job-7.mp4")])
def test_a_prefix_may_be_written_in_any_way(
    prefix: str, key: str, s3: Any, video: Path, make_job: JobOf
) -> None:
    stored = _store_in(s3, prefix, template="{key}")(video, make_job(), _ignore)

    assert stored.url == key
    assert s3.head_object(Bucket="videos", Key=key)


def test_a_large_video_goes_up_in_parts(s3: Any, large_video: Path, make_job: JobOf) -> None:
    fractions: list[float] = []
    store = _store_in(s3, "out")

    store(large_video, make_job(), fractions.append)

    kept = s3.get_object(Bucket="videos", Key="out/job-7.mp4")
    assert kept["Body"].read() == large_video.read_bytes()
    assert kept["ContentType"] == "video/mp4"
    assert kept["ETag"].endswith('-3"')
    assert fractions == sorted(fractions)
    assert len(set(fractions)) == 4


def test_a_job_that_is_taken_back_leaves_nothing_to_pay_for(
    s3: Any, large_video: Path, make_job: JobOf
) -> None:
    def tick(fraction: float) -> None:
        if fraction > 0:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        _store_in(s3, "out")(large_video, make_job(), tick)

    assert "Uploads" not in s3.list_multipart_uploads(Bucket="videos")
    assert "Contents" not in s3.list_objects_v2(Bucket="videos")


def test_a_bucket_that_does_not_exist_is_for_somebody_to_put_right(
    s3: Any, video: Path, make_job: JobOf
) -> None:
    with pytest.raises(StoreFailed) as failure:
        _store_in(s3, "out", bucket="elsewhere")(video, make_job(), _ignore)

    assert not failure.value.retryable
    assert failure.value.message.startswith("There is no bucket 'elsewhere': check B2_BUCKET_NAME")
    assert failure.value.details == {"reason": "NoSuchBucket", "status_code": 404}


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("AccessDenied", "needs writeFiles, readFiles and listAllBucketNames for bucket 'videos'"),
        ("SomethingNew", "needs writeFiles, readFiles and listAllBucketNames for bucket 'videos'"),
        ("InvalidAccessKeyId", "check B2_KEY_ID"),
        ("SignatureDoesNotMatch", "check B2_APP_KEY"),
    ],
)
def test_a_key_that_may_not_write_is_for_somebody_to_put_right(
    code: str, advice: str, video: Path, make_job: JobOf
) -> None:
    with serving(_s3_error(403, code)) as site:
        failure = _failure(site.url, video, make_job())

    assert not failure.retryable
    assert advice in failure.message
    assert failure.message.endswith(f"({code})")
    assert "005deadbeef" not in failure.message
    assert len(site.seen) <= len(NEW_STORE)


def test_a_key_that_may_write_but_not_read_is_found_out(video: Path, make_job: JobOf) -> None:
    with serving(*NEW_STORE, status(200, ETag='"e"'), status(403)) as site:
        failure = _failure(site.url, video, make_job())

    assert "readFiles" in failure.message
    assert not failure.retryable


def test_a_video_that_arrives_short_is_not_called_stored(video: Path, make_job: JobOf) -> None:
    short = status(200, Content_Length="7")
    with serving(*NEW_STORE, status(200, ETag='"e"'), short) as site:
        failure = _failure(site.url, video, make_job())

    assert failure.message == "Upload failed: the store holds 7 of 1048576 bytes"
    assert failure.retryable


def test_a_busy_store_is_tried_again_and_the_tries_are_counted(
    video: Path, make_job: JobOf
) -> None:
    size = status(200, Content_Length=str(1024**2))
    busy = _s3_error(503, "SlowDown")
    with serving(*NEW_STORE, busy, status(200, ETag='"e"'), size) as site:
        stored = _store(site.url)(video, make_job(), _ignore)

    assert stored.attempts == 2
    sent = site.seen[len(NEW_STORE) :]
    assert [request.method for request in sent] == ["PUT", "PUT", "HEAD"]
    assert sent[1].body == video.read_bytes()


def test_a_store_that_never_recovers_may_be_tried_elsewhere(video: Path, make_job: JobOf) -> None:
    with serving(*NEW_STORE, _s3_error(503, "ServiceUnavailable")) as site:
        failure = _failure(site.url, video, make_job())

    assert failure.retryable
    assert failure.message == "Upload failed after 4 tries: ServiceUnavailable"
    assert failure.details == {"reason": "ServiceUnavailable", "status_code": 503}
    assert len(site.seen) == len(NEW_STORE) + 4


def test_a_store_of_any_make_understands_the_upload(video: Path, make_job: JobOf) -> None:
    size = status(200, Content_Length=str(1024**2))
    with serving(*NEW_STORE, status(200, ETag='"e"'), size) as site:
        _store(f"http://localhost:{site.port}")(video, make_job(), _ignore)

    upload = site.seen[len(NEW_STORE)]
    sent = upload.headers
    assert not [name for name in sent if "checksum" in name or name == "x-amz-trailer"]
    assert sent["authorization"].startswith("AWS4-HMAC-SHA256 ")
    assert sent["x-amz-content-sha256"] == hashlib.sha256(video.read_bytes()).hexdigest()
    assert upload.body == video.read_bytes()
    assert upload.target == "/videos/out/job-7.mp4"


def test_a_store_that_does_not_answer_may_be_tried_again(video: Path, make_job: JobOf) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    failure = _failure(f"http://127.0.0.1:{port}", video, make_job())

    assert failure.retryable
    assert failure.message == "Upload failed after 4 tries: EndpointConnectionError"


def _failure(url: str, video: Path, job: Job) -> StoreFailed:
    with pytest.raises(StoreFailed) as failure:
        _store(url)(video, job, _ignore)
    return failure.value


def _store(url: str) -> S3Store:
    return _store_in(s3_client(url, "us-west-004", "key-id", "key-secret"), "out")


def _store_in(client: Any, prefix: str, *, bucket: str = "videos", **options: Any) -> S3Store:
    template = {"output_url_template": options["template"]} if options else {}
    place = Bucket(client, bucket, prefix, **template, retry=Retry(sleep=_ignore))
    identify = partial(fingerprint, engine="fake", weights=None)
    return S3Store(place, S3Records(place), identify, part_bytes=PART_BYTES)


def _s3_error(code: int, word: str) -> Answer:
    text = f"<Error><Code>{word}</Code><Message>The key '005deadbeef' is bad</Message></Error>"
    return body(text.encode(), code, Content_Type="application/xml")


def _ignore(fraction: float) -> None:
    """Take no interest."""
