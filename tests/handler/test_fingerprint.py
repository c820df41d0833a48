from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import Job
from handler.fingerprint import fingerprint

PLAIN = {"video_url": "https://a.test/v.mp4", "audio_url": "https://a.test/a.wav"}


def print_of(engine: str = "musetalk", weights: str | None = "v15", **fields: Any) -> str:
    return fingerprint(Job.parse(PLAIN | fields), engine, weights)


@pytest.mark.parametrize(
    "fields",
    [
        {"musetalk_job_id": "another"},
        {"video_url": "https://a.test/v.mp4?X-Amz-Signature=abc#t=1"},
        {"audio_url": "HTTPS://user:pass@A.test/a.wav"},
        {"params": {"crf": 18, "fps": 25}},
        {"sync_mode": "bounce"},
        {"resolution": None},
        {"metadata": {"a": 1}},
        {"webhook_url": "https://hook.test/"},
        {"deadline_seconds": 60},
        {"output": {"put_url": "https://b.test/?sig", "get_url": "https://b.test/"}},
    ],
)
def test_what_may_differ_between_deliveries_of_one_job_makes_no_other_job(
    fields: dict[str, Any],
) -> None:
    assert print_of(**fields) == print_of()


@pytest.mark.parametrize(
    "fields",
    [
        {"video_url": "https://a.test/w.mp4"},
        {"video_url": "https://a.test/V.mp4"},
        {"video_url": "http://a.test/v.mp4"},
        {"audio_url": "https://b.test/a.wav"},
        {"video_url": PLAIN["audio_url"], "audio_url": PLAIN["video_url"]},
        {"params": {"crf": 19}},
        {"sync_mode": "loop"},
        {"resolution": "720p"},
        {"aspect_ratio": "9:16"},
        {"output": {"key": "mine.mp4"}},
        {"engine": "preview"},
        {"weights": None},
    ],
)
def test_what_changes_the_video_makes_another_job(fields: dict[str, Any]) -> None:
    assert print_of(**fields) != print_of()


def test_a_fingerprint_does_not_change_from_one_version_to_the_next() -> None:
    """Else every record in every bucket would belong to another job."""
    known = "fab17f1b32011b2c08edfc9fa0f4d7dc2bfad75dc1c01372d9c3b4137b5c5d55"

    assert print_of() == known


@given(
    url=st.from_regex(r"\A[A-Za-z][A-Za-z0-9+.\-]*://\S+\Z").filter(lambda url: len(url) <= 2048)
)
def test_whatever_the_url_there_is_a_fingerprint(url: str) -> None:
    assert len(print_of(video_url=url)) == 64
