"""Put finished videos into a bucket: Backblaze B2, or any other that speaks S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from adapters.transfer.retry import PATIENT, Retry, Transient
from handler.errors import StoreFailed
from handler.job import Job
from handler.ports import Stored
from handler.progress import Tick

DEFAULT_OUTPUT_URL_TEMPLATE = "https://f000.backblazeb2.com/file/{bucket}/{key}"
CONTENT_TYPE = "video/mp4"

CONNECT_SECONDS = 10
READ_SECONDS = 60

#: S3 takes no smaller parts than 5 MiB, except the last, and no more than 10,000.
PART_BYTES = 16 * 1024**2

_FORBIDDEN = (
    "The store forbids it: the key needs writeFiles, readFiles and listAllBucketNames"
    " for bucket {bucket!r}, and the account room under its caps."
)
#: What somebody must do before another try can help, by the store's error code.
_ADVICE: Mapping[str, str] = {
    "403": _FORBIDDEN,
    "AccessDenied": _FORBIDDEN,
    "InvalidAccessKeyId": "The store does not know this key: check B2_KEY_ID"
    " (on B2 an application key, never the master key) and S3_ENDPOINT_URL.",
    "SignatureDoesNotMatch": "The key's secret is wrong: check B2_APP_KEY.",
    "NoSuchBucket": "There is no bucket {bucket!r}: check B2_BUCKET_NAME and S3_ENDPOINT_URL.",
}


def s3_client(endpoint_url: str | None, region: str | None, key_id: str, key_secret: str) -> Any:
    """Return a boto3 client that any S3-compatible store understands; it retries nothing."""
    # Half a second that a worker without a bucket need not spend.
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        signature_version="s3v4",
        # B2 refuses the checksums that newer SDKs add by themselves.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        # Its own retries after a 500 or 503 are all over within half a second, and nothing can
        # stop them: S3Store waits for longer, and can be stopped.
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


class S3Store:
    """Puts videos into a bucket: the port ``Store`` over S3."""

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str,
        output_url_template: str = DEFAULT_OUTPUT_URL_TEMPLATE,
        *,
        part_bytes: int = PART_BYTES,
        retry: Retry = PATIENT,
    ) -> None:
        """Build on a client of :func:`s3_client`; a larger video goes in parts of that size."""
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._output_url_template = output_url_template
        self._part_bytes = part_bytes
        self._retry = retry

    def __call__(self, video: Path, job: Job, tick: Tick) -> Stored:
        """Upload a video and check that all of it arrived.

        ``tick`` may stop it between requests. Raises :class:`StoreFailed`, retryable unless the
        bucket or its key must be put right first.
        """
        key = self._key(job)
        upload = _Upload(self._client, self._bucket, key, self._retry, tick)
        try:
            upload.send(video, self._part_bytes)
        except Transient as error:
            raise StoreFailed(
                f"Upload failed after {self._retry.tries} tries: {error}", **error.details
            ) from error
        tick(1.0)
        return Stored(self._url(key), upload.attempts)

    def _key(self, job: Job) -> str:
        if job.output and job.output.key:
            return job.output.key
        return f"{self._prefix}/{job.musetalk_job_id}.mp4".lstrip("/")

    def _url(self, key: str) -> str:
        url = self._output_url_template.replace("{bucket}", self._bucket)
        return url.replace("{key}", quote(key, safe="/:"))


class _Upload:
    """One video on its way into a bucket, and how often its most stubborn request was tried.

    Not boto3's ``upload_file``: that one takes an exception from its callback for a network
    error and goes on trying, so that no job could be stopped, and it counts no tries.
    """

    def __init__(self, client: Any, bucket: str, key: str, retry: Retry, tick: Tick) -> None:
        self._client = client
        self._name = {"Bucket": bucket, "Key": key}
        self._retry = retry
        self._tick = tick
        self._fraction = 0.0
        self.attempts = 1

    def send(self, video: Path, part_bytes: int) -> None:
        """Send a file, at once or in parts, and see that the store has all of it."""
        size = video.stat().st_size
        with video.open("rb") as file:
            if size > part_bytes:
                self._send_parts(file, size, part_bytes)
            else:
                self._call(self._client.put_object, Body=file.read(), ContentType=CONTENT_TYPE)
        arrived = self._call(self._client.head_object)["ContentLength"]
        if arrived != size:
            raise StoreFailed(f"Upload failed: the store holds {arrived} of {size} bytes")

    def _send_parts(self, file: BinaryIO, size: int, part_bytes: int) -> None:
        client = self._client
        begun = self._call(client.create_multipart_upload, ContentType=CONTENT_TYPE)["UploadId"]
        parts: list[dict[str, Any]] = []
        try:
            while chunk := file.read(part_bytes):
                number = len(parts) + 1
                sent = self._call(client.upload_part, UploadId=begun, PartNumber=number, Body=chunk)
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
                self._fraction = file.tell() / size
            whole = {"Parts": parts}
            self._call(client.complete_multipart_upload, UploadId=begun, MultipartUpload=whole)
        except BaseException:
            # Parts of an unfinished upload are invisible, and paid for.
            with suppress(Exception):
                client.abort_multipart_upload(**self._name, UploadId=begun)
            raise

    def _call(self, operation: Callable[..., Any], **arguments: Any) -> Any:
        def attempt(number: int) -> Any:
            self.attempts = max(self.attempts, number)
            with self._understanding():
                return operation(**self._name, **arguments)

        return self._retry.run(attempt, lambda: self._tick(self._fraction))

    @contextmanager
    def _understanding(self) -> Iterator[None]:
        # There is a client, so these are loaded already.
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            yield
        except ClientError as error:
            raise self._meaning(error.response) from error
        except BotoCoreError as error:
            raise Transient(type(error).__name__) from error

    def _meaning(self, response: Mapping[str, Any]) -> StoreFailed | Transient:
        """Understand an answer by its code: a store's own sentences may quote the key."""
        code = str(response.get("Error", {}).get("Code", "Unknown"))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        known = "403" if status == HTTPStatus.FORBIDDEN and code not in _ADVICE else code
        if known not in _ADVICE:
            return Transient(code, status=status)
        advice = _ADVICE[known].format(bucket=self._name["Bucket"])
        return StoreFailed(f"{advice} ({code})", retryable=False, reason=code, status_code=status)
