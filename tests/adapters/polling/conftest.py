"""Jobs as an orchestrator gives them away."""

from __future__ import annotations

from typing import Any

import pytest

from tests.drive_poll_loop import Order

NAMES = ("video_url", "audio_url", "aspect_ratio", "resolution")


@pytest.fixture
def order(job: dict[str, Any]) -> Order:
    """Return what makes jobs as the orchestrator gives them away."""

    def make(name: str = "job-123", **fields: Any) -> dict[str, Any]:
        return {"musetalk_job_id": name, **{field: job[field] for field in NAMES}, **fields}

    return make
