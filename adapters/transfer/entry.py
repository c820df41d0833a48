"""What lies under one name of a bucket, and what a store's answers about it mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from adapters.transfer.pulse import beside
from adapters.transfer.retry import Retry, Transient
from handler.errors import StoreFailed

#: How long tidying up may hold up the answer to a job.
FORGET_SECONDS = 3.0

_FORBIDDEN = (
    "The store forbids it: the key needs writeFiles, readFiles and listAllBucketNames"
    " for bucket {bucket!r}, and the account room under its caps."
)
#: What else somebody must do before another try can help, by the store's error code.
_ADVICE: Mapping[str, str] = {
    "InvalidAccessKeyId": "The store does not know this key: check B2_KEY_ID"
    " (on B2 an application key, never the master key) and S3_ENDPOINT_URL.",
    "SignatureDoesNotMatch": "The key's secret is wrong: check B2_APP_KEY.",
    "NoSuchBucket": "There is no bucket {bucket!r}: check B2_BUCKET_NAME and S3_ENDPOINT_URL.",
}


class Absent(Exception):
    """There is nothing under this name."""


class Overtaken(Exception):
    """Somebody else wrote first: what a conditional write took for granted is no longer so."""


class Forbidden(StoreFailed):
    """The key of the worker does not allow this; some stores say so of what is not there."""


class Unsupported(Exception):
    """The store does not know what was asked of it."""


@dataclass(frozen=True, slots=True)
class Found:
    """Say what a store has under a name; the last two only of what a worker of ours put there."""

    etag: str
    bytes: int
    sha256: str | None = None
    fingerprint: str | None = None


class Entry:
    """What lies under one name of a bucket; counts the tries of its most stubborn request.

    Not boto3's ``upload_file``: that one takes an exception from its callback for a network
    error and goes on trying, so that no job could be stopped, and it counts no tries.
    """

    def __init__(
        self, client: Any, bucket: str, key: str, retry: Retry, pulse: Callable[[], None]
    ) -> None:
        self._client = client
        self._name = {"Bucket": bucket, "Key": key}
        self._retry = retry
        self._pulse = pulse
        self.attempts = 1

    def call(self, operation: str, **arguments: Any) -> Any:
        """Call a method of the client by its name, and again if it fails for what may pass.

        Raises :class:`Transient` if that did not pass, :class:`Absent`, :class:`Overtaken`,
        :class:`Unsupported`, and :class:`StoreFailed` if somebody must act first.
        """

        def attempt(number: int) -> Any:
            self.attempts = max(self.attempts, number)
            ask = partial(getattr(self._client, operation), **self._name, **arguments)
            with self._understanding():
                # A store that stands still holds a request for a minute.
                return beside(ask, self._pulse)

        return self._retry.run(attempt, self._pulse)

    def head(self) -> Found:
        """Return what is there; raise as :meth:`call` does."""
        return _found(self.call("head_object"))

    def look(self) -> Found | None:
        """Return what is there, or None if nothing is, as far as the worker may know."""
        with suppress(Absent, Forbidden):
            return self.head()
        return None

    def read(self, limit_bytes: int) -> tuple[bytes, Found] | None:
        """Return what is there, up to a limit, and what :meth:`look` would say of it."""

        def ask() -> tuple[bytes, Found]:
            answer = self._client.get_object(**self._name)
            with answer["Body"] as body:
                return body.read(limit_bytes), _found(answer)

        def attempt(number: int) -> tuple[bytes, Found]:
            with self._understanding():
                return beside(ask, self._pulse)

        with suppress(Absent, Forbidden):
            return self._retry.run(attempt, self._pulse)
        return None

    def forget(self, **upload: str) -> None:
        """Remove what is there, or only parts of an upload of it, if the store and the key let."""
        remove = self._client.abort_multipart_upload if upload else self._client.delete_object
        with suppress(Exception):
            beside(partial(remove, **self._name, **upload), _go_on, FORGET_SECONDS)

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

    def _meaning(self, response: Mapping[str, Any]) -> Exception:
        """Understand an answer by its code: a store's own sentences may quote the key."""
        code = str(response.get("Error", {}).get("Code", "Unknown"))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in {"NoSuchKey", "404"}:
            return Absent(code)
        if status == HTTPStatus.PRECONDITION_FAILED or code == "ConditionalRequestConflict":
            return Overtaken(code)
        if status == HTTPStatus.NOT_IMPLEMENTED:
            return Unsupported(code)
        facts = {"reason": code, "status_code": status, "retryable": False}
        if code in _ADVICE:
            advice = _ADVICE[code].format(bucket=self._name["Bucket"])
            return StoreFailed(f"{advice} ({code})", **facts)
        if status == HTTPStatus.FORBIDDEN:
            advice = _FORBIDDEN.format(bucket=self._name["Bucket"])
            return Forbidden(f"{advice} ({code})", **facts)
        return Transient(code, status=status)


def _go_on() -> None:
    """Let nothing stop it."""


def _found(answer: Mapping[str, Any]) -> Found:
    """Read an answer's headers: stores may leave out all but the length."""
    ours = answer.get("Metadata", {})
    return Found(
        etag=answer.get("ETag", ""),
        bytes=answer["ContentLength"],
        sha256=ours.get("sha256"),
        fingerprint=ours.get("fingerprint"),
    )
