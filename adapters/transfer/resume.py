"""Go on with a download where it broke off, if it is certain that it is still the same file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from adapters.transfer.wire import Reply

#: A strong one, which stands for the very bytes; ``W/"..."`` does not (RFC 9110, section 8.8.3).
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Say how much has come of how much, and of which version of a file."""

    etag: str
    received_bytes: int
    total_bytes: int

    @property
    def headers(self) -> Mapping[str, str]:
        """Return what asks for the rest, or for all of it if the file has changed."""
        return {"Range": f"bytes={self.received_bytes}-", "If-Range": self.etag}

    def continues(self, reply: Reply) -> bool:
        """Say whether an answer holds the bytes that are missing, of the very same file."""
        found = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", ""))
        if reply.status != HTTPStatus.PARTIAL_CONTENT or found is None:
            return False
        start, total = map(int, found.groups())
        return (
            start == self.received_bytes
            and total == self.total_bytes
            # Some servers know ranges, but not If-Range.
            and reply.headers.get("etag", self.etag) == self.etag
        )


def strong_etag(reply: Reply) -> str | None:
    """Return the tag by which a server will know this version of a file, if it gave one."""
    etag = reply.headers.get("etag", "")
    return etag if _STRONG_ETAG.fullmatch(etag) else None
