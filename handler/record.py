"""What is kept of a job that succeeded: its result, and what exactly had been asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

from pydantic import JsonValue, ValidationError

from handler.result import Success

#: Changes when an older worker would misread what a newer one keeps.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Record:
    """Hold a success and the fingerprint of its job; its presence means that the job is done."""

    fingerprint: str
    success: Success

    def replay(self, metadata: dict[str, JsonValue]) -> Success:
        """Return the success once more, as the answer to a job with its own metadata."""
        return self.success.model_copy(update={"replayed": True, "metadata": metadata})

    def holding(self, size_bytes: int, sha256: str) -> Self:
        """Return this record of another file, which holds the same video."""
        output = self.success.output and self.success.output.holding(size_bytes, sha256)
        return type(self)(self.fingerprint, self.success.model_copy(update={"output": output}))

    @property
    def sha256(self) -> str | None:
        """Return the checksum of the video, in hex, where it is known."""
        return self.success.output.sha256 if self.success.output else None

    def encode(self) -> bytes:
        """Return the result as JSON, with the fingerprint and the format added to its fields."""
        ours = {"fingerprint": self.fingerprint, "record_format": FORMAT}
        return json.dumps(self.success.to_json() | ours, indent=2).encode()

    @classmethod
    def decode(cls, content: bytes, job_id: str) -> Self | None:
        """Read a record back; one that is damaged, of another format or of another job is none."""
        try:
            data: Any = json.loads(content)
            if data["record_format"] != FORMAT or data["musetalk_job_id"] != job_id:
                return None
            fingerprint = data["fingerprint"]
            success = Success.model_validate(data)
        except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
            return None
        return cls(fingerprint, success) if isinstance(fingerprint, str) else None
