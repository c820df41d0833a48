"""A store's semantics in memory, behind boto3's method names: what it does, not how it is asked."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError


@dataclass
class Kept:
    body: bytes
    metadata: dict[str, str]

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body).hexdigest()}"'

    def headers(self) -> dict[str, Any]:
        return {"ETag": self.etag, "ContentLength": len(self.body), "Metadata": self.metadata}


@dataclass
class MemoryS3:
    """One bucket, which keeps conditions or knows none."""

    compares: bool
    objects: dict[str, Kept] = field(default_factory=dict)


@dataclass
class MemoryClient:
    """One worker's way to the store, on which that worker's faults happen."""

    store: MemoryS3
    #: Called before each request; returns True to have its answer lost.
    before: Callable[[], bool] = lambda: False

    def put_object(self, **asked: Any) -> dict[str, Any]:
        lost = self.before()
        there = self.store.objects.get(asked["Key"])
        etag = asked.get("IfMatch")
        if (etag or "IfNoneMatch" in asked) and not self.store.compares:
            raise error(501, "NotImplemented")
        if etag and there is None:
            raise error(404, "NoSuchKey")
        if there and ("IfNoneMatch" in asked or etag not in {None, there.etag}):
            raise error(412, "PreconditionFailed")
        self.store.objects[asked["Key"]] = kept = Kept(asked["Body"], asked.get("Metadata", {}))
        if lost:
            raise ReadTimeoutError(endpoint_url="memory")
        return {"ETag": kept.etag}

    def get_object(self, **asked: Any) -> dict[str, Any]:
        kept = self._find(asked["Key"], "NoSuchKey")
        return {"Body": io.BytesIO(kept.body), **kept.headers()}

    def head_object(self, **asked: Any) -> dict[str, Any]:
        return self._find(asked["Key"], "404").headers()

    def delete_object(self, **asked: Any) -> None:
        self.store.objects.pop(asked["Key"], None)

    def _find(self, key: str, word: str) -> Kept:
        if self.before():
            raise ReadTimeoutError(endpoint_url="memory")
        if key not in self.store.objects:
            raise error(404, word)
        return self.store.objects[key]


def error(status: int, word: str) -> ClientError:
    answer = {"Error": {"Code": word}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "any")
