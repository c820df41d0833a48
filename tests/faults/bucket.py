"""Workers that deliver into a bucket, and what then lies there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from handler import Success
from tests.delivery.service import BUCKET, PREFIX, REGION, Service
from tests.faults.aftermath import Watched, watched_process


def delivering(
    place: Path, good: Mapping[str, Any], store: Service, **env: str
) -> AbstractContextManager[Watched]:
    """Start a worker that delivers into a bucket."""
    where = {"S3_ENDPOINT_URL": store.url, "S3_REGION": REGION, "B2_PREFIX": PREFIX}
    return watched_process(place, good, OUTPUT_DIR="", B2_BUCKET_NAME=BUCKET, **where, **env)


def objects(service: Service, name: str) -> list[str]:
    """Return what lies in the bucket of a job."""
    return [key.removeprefix(f"{PREFIX}/{name}") for key in service.names() if name in key]


def is_true(service: Service, result: Success) -> bool:
    """Tell whether what a result says lies there, on record."""
    name = result.musetalk_job_id
    assert result.output
    assert objects(service, name) == [".json", ".mp4"]
    return service.sha256(name) == result.output.sha256 == service.record(name).sha256
