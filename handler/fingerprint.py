"""Tell whether two requests ask for the same video."""

from __future__ import annotations

import hashlib
import json
import re

from handler.job import Job


def fingerprint(job: Job, engine: str, weights: str | None) -> str:
    """Return a SHA-256, in hex, of all that decides what a job's video looks like.

    What may differ from one delivery of a job to the next is left out: signatures in URLs, the
    deadline, the webhook, the metadata, and presigned places for the video.
    """
    asked = {
        "video_url": _place(job.video_url),
        "audio_url": _place(job.audio_url),
        "aspect_ratio": job.aspect_ratio,
        "resolution": job.resolution,
        # Without the defaults, so that an option that comes with a later version changes nothing.
        "params": job.params.model_dump(mode="json", exclude_defaults=True),
        "sync_mode": job.sync_mode.value,
        "output_key": job.output.key if job.output else None,
        "engine": engine,
        "weights": weights,
    }
    canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _place(url: str) -> str:
    """Return a URL without user, query and fragment; takes any text, as a bad URL fails later."""
    scheme, _, rest = re.split(r"[?#]", url, maxsplit=1)[0].partition("://")
    authority, slash, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    return f"{scheme.lower()}://{host.lower()}{slash}{path}"
