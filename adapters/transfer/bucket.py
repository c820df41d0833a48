"""A bucket at Backblaze B2, or at any other store that speaks S3."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import quote

from adapters.transfer.entry import Entry, Forbidden, Found, Overtaken, Unsupported
from adapters.transfer.retry import PATIENT, Retry, Transient
from handler.errors import StoreFailed
from handler.job import Job

DEFAULT_OUTPUT_URL_TEMPLATE = "https://f000.backblazeb2.com/file/{bucket}/{key}"

CONNECT_SECONDS = 10
READ_SECONDS = 60

#: How often a write that depends on what is there begins anew, as other workers write as well.
RIVALS = 5

#: Arguments of a write that make it fail if somebody else wrote before it; none where the store
#: knows no such thing.
Condition: TypeAlias = Mapping[str, str]


def s3_client(endpoint_url: str | None, region: str | None, key_id: str, key_secret: str) -> Any:
    """Return a boto3 client that any S3-compatible store understands; it retries nothing."""
    # Half a second that a worker without a bucket need not spend.
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        signature_version="s3v4",
        # B2 refuses the checksums that newer SDKs add by themselves. What protects a body on its
        # way is its SHA-256, which is signed along and which every store compares.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": True},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        # Its own retries after a 500 or 503 are all over within half a second, and nothing can
        # stop them: ours wait for longer, and can be stopped.
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region,
        aws_access_key_id=key_id,
        aws_secret_access_key=key_secret,
        config=config,
    )


class Bucket:
    """Knows the names of things in a bucket, and what its store can do."""

    def __init__(
        self,
        client: Any,
        name: str,
        prefix: str,
        output_url_template: str = DEFAULT_OUTPUT_URL_TEMPLATE,
        *,
        retry: Retry = PATIENT,
    ) -> None:
        """Build on a client of :func:`s3_client`; names without a place of their own get prefix."""
        self._client = client
        self._name = name
        self._prefix = prefix.strip("/")
        self._output_url_template = output_url_template
        self._retry = retry
        self._compares: bool | None = None

    def url(self, job: Job) -> str:
        """Return where a job's video can be had."""
        url = self._output_url_template.replace("{bucket}", self._name)
        return url.replace("{key}", quote(self._video_key(job), safe="/:"))

    def video(self, job: Job, pulse: Callable[[], None]) -> Entry:
        """Return the entry of a job's video; ``pulse`` is called before each try at it."""
        return self._entry(self._video_key(job), pulse)

    def record(self, job: Job, pulse: Callable[[], None]) -> Entry:
        """Return the entry of a job's record, which is always under the job's id."""
        return self._entry(self._own_key(f"{job.musetalk_job_id}.json"), pulse)

    def unless_overtaken(self, found: Found | None, pulse: Callable[[], None]) -> Condition:
        """Return the condition for a write over what was found there, if anything was.

        Whether the store keeps conditions is tried on a scratch name, the first time: a store that
        does not may refuse them, as B2 does with a 501, or ignore them.
        """
        if self._compares is None:
            self._compares = self._try_conditions(pulse)
        if not self._compares:
            return {}
        return {"IfMatch": found.etag} if found else {"IfNoneMatch": "*"}

    @contextmanager
    def patience_for(self, what: str) -> Iterator[None]:
        """Turn what did not pass for all patience into :class:`StoreFailed`, retryable."""
        try:
            yield
        except Transient as error:
            raise StoreFailed(
                f"{what} failed after {error.effort}: {error}", **error.details
            ) from error
        except Unsupported as error:
            raise StoreFailed(f"{what} failed: {error}", retryable=False) from error

    def _video_key(self, job: Job) -> str:
        if job.output and job.output.key:
            return job.output.key
        return self._own_key(f"{job.musetalk_job_id}.mp4")

    def _own_key(self, name: str) -> str:
        return f"{self._prefix}/{name}".lstrip("/")

    def _entry(self, key: str, pulse: Callable[[], None]) -> Entry:
        return Entry(self._client, self._name, key, self._retry, pulse)

    def _try_conditions(self, pulse: Callable[[], None]) -> bool:
        scratch = self._entry(self._own_key(f".probe-{uuid.uuid4().hex}"), pulse)
        try:
            scratch.call("put_object", Body=b"", IfNoneMatch="*")
            scratch.call("put_object", Body=b"", IfNoneMatch="*")
        except Overtaken:
            return True
        except (Unsupported, Forbidden):
            return False
        except Transient as error:
            # A store in trouble says nothing about what it can do.
            if error.status is None or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            return False
        finally:
            scratch.forget()
        return False
