"""Cases 49 to 51: clocks that jump, requests that are none, and secrets wherever they were put."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.journal import DiskJournal
from handler import read_result
from tests.adapters.transfer.loopback import body, serving, status
from tests.drive_http import ROOT
from tests.faults.aftermath import (
    MARK,
    QUERY,
    TOKEN,
    Watched,
    verdict,
    watched_process,
    watched_runtime,
)

CALLERS_FAULT = ("media_error", False, "validation")
HOUR_SECONDS = 3600.0
#: What reads the clock on the wall, which can be set: the ages of files, and dates that are told.
READERS = {
    "adapters/journal.py",
    "adapters/transfer/webhook.py",
    "adapters/transfer/wire.py",
    "adapters/workspace.py",
    "inference/avatar_cache.py",
    "inference/weights/fetch.py",
    "inference/weights/lock.py",
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, good: Mapping[str, str]) -> Iterator[Watched]:
    with watched_process(tmp_path_factory.mktemp("requests"), good) as worker:
        yield worker


# -- 49: clocks ------------------------------------------------------------------------------------


def test_49_a_clock_that_jumps_makes_no_job_late_and_none_poisonous(
    tmp_path: Path, film: Path, syllable: Path
) -> None:
    jumps = itertools.cycle([HOUR_SECONDS, 0.0, -HOUR_SECONDS])
    journal = DiskJournal(tmp_path / "journal", wall_clock=lambda: 1.8e9 + next(jumps))
    files = {"video_url": film.as_uri(), "audio_url": syllable.as_uri(), "deadline_seconds": 60}
    worker = watched_runtime(tmp_path, files, lambda *_: pytest.fail("no"), journal=journal)

    results = [worker.film(musetalk_job_id="job-7", sync_mode=mode) for mode in ("loop", "loop")]

    assert all(result.metrics.total_time < HOUR_SECONDS for result in results)
    worker.assert_unharmed()


def test_49_no_duration_is_read_off_the_wall() -> None:
    sources = (
        path
        for part in ("adapters", "handler", "inference")
        for path in (ROOT / part).rglob("*.py")
    )
    wall = re.compile(r"\btime\.time\b|datetime\.(now|today|utcnow)|\blocaltime\b|\bgmtime\b")

    readers = {f"{path.relative_to(ROOT)}" for path in sources if wall.search(path.read_text())}

    assert readers == READERS


# -- 50: requests that are none --------------------------------------------------------------------

_DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("content", "field"),
    [
        pytest.param('{"video_url":', None, id="50 no JSON"),
        pytest.param("[]", None, id="50 no object"),
        pytest.param("null", None, id="50 nothing"),
        pytest.param(_DEEP, None, id="50 very deep"),
        pytest.param("{}", "video_url", id="50 fields missing"),
        pytest.param('{"video_url": 7, "audio_url": []}', "video_url", id="50 wrong types"),
        pytest.param(
            '{"video_url": "https://a.test/v", "audio_url": "https://a.test/a", "colour": 1}',
            "colour",
            id="50 unknown field",
        ),
        pytest.param(f'{{"video_url": "{"v" * 10_000_000}"}}', None, id="50 ten megabytes"),
    ],
)
def test_a_request_that_is_no_job_is_refused_by_the_name_of_its_field(
    worker: Watched, content: str, field: str | None
) -> None:
    assert worker.driver
    reply = worker.driver.ask("POST", "/generate", data=content)
    worker.answers.append(reply.body)

    failure = read_result(reply.body)

    assert reply.status == 422
    assert verdict(failure) == CALLERS_FAULT
    assert (failure.error_code, failure.details["field"]) == ("invalid_job", field)


# -- 51: secrets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        pytest.param({"video_url": f"https://me:{MARK}@a.test/v"}, "media_error", id="51 password"),
        pytest.param({"video_url": f"https://a.test/v#{QUERY}"}, "media_error", id="51 fragment"),
        pytest.param(
            {"resolution": f"https://a.test/?{QUERY}"}, "media_error", id="51 wrong place"
        ),
        pytest.param(
            {"output": {"put_url": f"{{site}}/v?{QUERY}", "get_url": f"{{site}}/v?{QUERY}"}},
            "processing_error",
            id="51 in a stack trace",
        ),
        pytest.param(
            {"webhook_url": f"https://a.test/hook?{QUERY}", "sync_mode": QUERY},
            "media_error",
            id="51 webhook",
        ),
    ],
)
def test_a_secret_is_told_to_nobody_wherever_it_was_put(
    worker: Watched, fields: dict[str, Any], kind: str
) -> None:
    with serving(status(403)) as site:
        output = {key: url.format(site=site.url) for key, url in fields.get("output", {}).items()}
        failure = worker.fail(**fields | ({"output": output} if output else {}))

    assert failure.error_type == kind
    assert (failure.stack_trace is not None) == (kind == "processing_error")


def test_51_the_engine_is_given_no_key(worker: Watched) -> None:
    [engine] = worker.family()

    assert [name for name, value in engine.environ().items() if MARK in value] == []


def test_51_a_wrong_token_is_not_repeated(worker: Watched) -> None:
    assert worker.driver
    wrong = {"Authorization": f"Bearer {MARK}-almost"}

    reply = worker.driver.ask("POST", "/generate", json=dict(worker.good), headers=wrong)
    worker.answers.append(reply.body)

    assert (reply.status, reply.body["error_code"]) == (401, "unauthorized")
    assert TOKEN not in str(reply.headers)


def test_51_whoever_looks_for_secrets_would_find_one(worker: Watched, film: Path) -> None:
    # Else the tests above would prove nothing: what a caller tells of a job is handed back.
    with serving(body(film.read_bytes())) as site:
        worker.film(video_url=f"{site.url}/face.mp4", metadata={"told": MARK})

    with pytest.raises(AssertionError, match=MARK):
        worker.assert_tidy()
    worker.answers.clear()
