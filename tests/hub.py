"""A hub of public repositories on loopback, as far as fetching one file goes, and what it has."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from inference.weights import WeightsFile
from tests.adapters.transfer.loopback import Handler, Seen, Site, serving

#: The commit of every file.
REVISION = "c0ffee" * 6 + "beef"


def published(path: str, content: bytes, **fields: Any) -> WeightsFile:
    """List a file under the name that it has in its repository, with its size and checksum."""
    facts = {
        "repository": "someone/tiny",
        "revision": REVISION,
        "name": path,
        "licence": "MIT",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return WeightsFile(path, **(facts | fields))


@dataclass
class Hub:
    """What a hub gives away, and what it was asked."""

    site: Site
    #: By the path of its URL.
    files: dict[str, bytes] = field(default_factory=dict)
    #: Where the next file breaks off, once.
    breaks_at: int | None = None

    @property
    def url(self) -> str:
        return self.site.url

    @property
    def asked(self) -> list[Seen]:
        """Return the requests so far."""
        return self.site.seen

    def offer(self, *files: tuple[WeightsFile, bytes]) -> None:
        """Give contents away, be they as they are listed or not."""
        for file, content in files:
            self.files[f"/{file.repository}/resolve/{file.revision}/{file.name}"] = content

    def answer(self, handler: Handler) -> None:
        """Answer as huggingface.co does for a file that it stores itself."""
        content = self.files.get(handler.path)
        if content is None:
            handler.send_error(404)
            return
        first = int(re.sub(r"bytes=(\d+)-", r"\1", handler.headers.get("Range", "bytes=0-")))
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Length", str(len(content) - first))
        handler.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        handler.send_header("X-Repo-Commit", handler.path.split("/")[4])
        # As this server does after each answer.
        handler.send_header("Connection", "close")
        handler.end_headers()
        if handler.command == "GET":
            end, self.breaks_at = self.breaks_at, None
            handler.wfile.write(content[first:end])


@contextmanager
def open_hub() -> Iterator[Hub]:
    """Open a hub that has nothing yet."""
    with serving() as site:
        hub = Hub(site)
        site.answers.append(hub.answer)
        yield hub
