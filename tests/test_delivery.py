"""Whole jobs over the network: media from a web server, the video into a bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from adapters.bootstrap import bootstrap
from adapters.config import Config, ConfigError
from adapters.transfer.bucket import s3_client
from handler import Failure, Runtime, Success, handle
from tests.adapters.transfer.loopback import body, serving, status

REGION = "us-west-000"


@dataclass(frozen=True)
class Bucket:
    """A bucket on loopback, and how to get at it."""

    endpoint: str
    client: Any

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        with self.client.get_object(Bucket="talking-avatar", Key=key)["Body"] as content:
            return bytes(content.read())

    def listed(self) -> list[str]:
        """Return what is in it."""
        listed = self.client.list_objects_v2(Bucket="talking-avatar").get("Contents", [])
        return [entry["Key"] for entry in listed]


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = s3_client(f"http://{host}:{port}", REGION, "key", "s3cr3t")
    place = {"LocationConstraint": REGION}
    client.create_bucket(Bucket="talking-avatar", CreateBucketConfiguration=place)
    bucket = Bucket(f"http://{host}:{port}", client)
    yield bucket
    for key in bucket.listed():
        client.delete_object(Bucket="talking-avatar", Key=key)
    client.delete_bucket(Bucket="talking-avatar")
    client.close()
    server.stop()


def open_worker(place: Path, **env: str) -> Runtime:
    """Start a worker from its environment alone, as production does."""
    ours = {
        "MUSETALK_ENGINE": "preview",
        "AVATAR_CACHE_DIR": str(place / "avatars"),
        "ALLOW_HTTP": "true",
        "ALLOW_PRIVATE_HOSTS": "127.0.0.1",
        "WORKER_ID": "worker-1",
        "PROVIDER": "local",
        "GPU_CLASS_NAME": "RTX-local-buffer",
    }
    return bootstrap(Config.from_env(ours | env))


def in_bucket(bucket: Bucket) -> dict[str, str]:
    """Return the predecessor's own variables for a bucket, and where it is."""
    return {
        "B2_KEY_ID": "key",
        "B2_APP_KEY": "s3cr3t",
        "B2_BUCKET_NAME": "talking-avatar",
        "B2_PREFIX": "avatar/outputs",
        "S3_ENDPOINT_URL": bucket.endpoint,
        "S3_REGION": REGION,
    }


def test_a_job_of_the_predecessors_callers_ends_in_the_bucket(
    tmp_path: Path, bucket: Bucket, face: Path, word: Path, job: dict[str, Any]
) -> None:
    worker = open_worker(tmp_path, **in_bucket(bucket))
    with serving(body(face.read_bytes()), body(word.read_bytes())) as site:
        urls = {"video_url": f"{site.url}/face?sig=1", "audio_url": f"{site.url}/voice?sig=2"}

        result = handle(job | urls, worker)

    assert isinstance(result, Success), result
    where = "https://f000.backblazeb2.com/file/talking-avatar/avatar/outputs/job-123.mp4"
    assert result.output_url == where
    assert result.output is not None
    stored = bucket.read("avatar/outputs/job-123.mp4")
    assert hashlib.sha256(stored).hexdigest() == result.output.sha256
    assert result.metrics.gpu_class == "RTX-local-buffer"
    assert result.worker is not None
    assert (result.worker.worker_id, result.worker.provider) == ("worker-1", "local")
    assert result.metrics.attempts == {"video": 1, "audio": 1, "upload": 1}


def test_a_job_that_comes_again_is_answered_by_another_worker_without_its_media(
    tmp_path: Path, bucket: Bucket, face: Path, word: Path, job: dict[str, Any]
) -> None:
    with serving(body(face.read_bytes()), body(word.read_bytes())) as site:
        job |= {"video_url": f"{site.url}/face?sig=1", "audio_url": f"{site.url}/voice?sig=1"}
        first = handle(job, open_worker(tmp_path / "first", **in_bucket(bucket)))
    job["video_url"] = job["video_url"].replace("sig=1", "sig=2")

    second = handle(job, open_worker(tmp_path / "second", **in_bucket(bucket)))

    assert isinstance(first, Success), first
    assert second == first.model_copy(update={"replayed": True})
    assert bucket.listed() == [f"avatar/outputs/job-123.{kind}" for kind in ("json", "mp4")]
    assert list((tmp_path / "first" / "avatars" / "journal").iterdir()) == []


def test_a_caller_who_presigns_needs_no_key_on_the_worker(
    tmp_path: Path, bucket: Bucket, face: Path, word: Path, job: dict[str, Any]
) -> None:
    worker = open_worker(tmp_path)
    place = {"Bucket": "talking-avatar", "Key": "theirs.mp4"}
    output = {
        "put_url": bucket.client.generate_presigned_url(
            "put_object", Params={**place, "ContentType": "video/mp4"}
        ),
        "get_url": "https://cdn.example.com/theirs.mp4",
    }
    with serving(body(face.read_bytes()), body(word.read_bytes())) as site:
        urls = {"video_url": f"{site.url}/face", "audio_url": f"{site.url}/voice"}

        result = handle(job | urls | {"output": output}, worker)

    assert isinstance(result, Success), result
    assert result.output_url == "https://cdn.example.com/theirs.mp4"
    assert bucket.read("theirs.mp4")[4:8] == b"ftyp"


def test_a_video_that_is_gone_fails_in_the_contracts_own_words(
    tmp_path: Path, bucket: Bucket, job: dict[str, Any], contract: Any
) -> None:
    worker = open_worker(tmp_path, **in_bucket(bucket))
    with serving(status(404)) as site:
        gone = {"video_url": f"{site.url}/video.mp4?X-Amz-Signature=s3cr3t"}

        result = handle(job | gone, worker)

    assert isinstance(result, Failure)
    details = {"url": f"{site.url}/video.mp4", "status_code": 404}
    expected = contract("media_error") | {"details": details}
    assert {name: result.to_json()[name] for name in expected} == expected
    assert bucket.listed() == []


def test_no_secret_is_in_any_answer(
    tmp_path: Path, bucket: Bucket, face: Path, word: Path, job: dict[str, Any]
) -> None:
    worker = open_worker(tmp_path, **in_bucket(bucket) | {"B2_BUCKET_NAME": "not-there"})
    with serving(body(face.read_bytes()), body(word.read_bytes())) as site:
        urls = {"video_url": f"{site.url}/face?sig=s1gn", "audio_url": f"{site.url}/a?sig=s1gn"}

        result = handle(job | urls, worker)

    assert isinstance(result, Failure)
    assert (result.stage, result.retryable) == ("upload", False)
    assert "B2_BUCKET_NAME" in result.error_message
    for secret in ("s1gn", "s3cr3t"):
        assert secret not in str(result.to_json())


def test_a_job_without_a_place_to_go_says_what_is_missing(
    tmp_path: Path, face: Path, word: Path, job: dict[str, Any]
) -> None:
    worker = open_worker(tmp_path)
    with serving(body(face.read_bytes()), body(word.read_bytes())) as site:
        urls = {"video_url": f"{site.url}/face", "audio_url": f"{site.url}/voice"}

        result = handle(job | urls, worker)

    assert isinstance(result, Failure)
    assert (result.stage, result.retryable) == ("upload", False)
    assert "put_url" in result.error_message


def test_a_webhook_secret_that_cannot_sign_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="WEBHOOK_SECRET"):
        open_worker(tmp_path, WEBHOOK_SECRET="not base64!")
