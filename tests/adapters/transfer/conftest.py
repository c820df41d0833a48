from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from adapters.transfer.bucket import s3_client
from handler.job import Job


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "finished.mp4"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


@pytest.fixture
def make_job() -> Callable[..., Job]:
    def make(**fields: Any) -> Job:
        urls = {"video_url": "https://x.test/v", "audio_url": "https://x.test/a"}
        return Job.parse({"musetalk_job_id": "job-7", **urls, **fields})

    return make


@pytest.fixture
def full_disk(video: Path) -> Iterator[None]:
    """Let no file grow beyond some kilobytes; the video is there already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def s3_service() -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = s3_client(f"http://{host}:{port}", "us-west-004", "key-id", "key-secret")
    yield client
    client.close()
    server.stop()


@pytest.fixture
def s3(s3_service: Any) -> Iterator[Any]:
    """A client of a store that has one empty bucket, ``videos``."""
    place = {"LocationConstraint": "us-west-004"}
    s3_service.create_bucket(Bucket="videos", CreateBucketConfiguration=place)
    yield s3_service
    for kept in s3_service.list_objects_v2(Bucket="videos").get("Contents", []):
        s3_service.delete_object(Bucket="videos", Key=kept["Key"])
    s3_service.delete_bucket(Bucket="videos")
