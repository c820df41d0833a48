"""How a worker stands, as every door tells it."""

from __future__ import annotations

import pytest

from adapters.health import Health
from handler import WorkerBroken


def test_a_worker_that_starts_is_not_ready_yet() -> None:
    health = Health()

    assert health.http_status == 503
    assert health.short() == health.full() == {"status": "starting"}


def test_a_worker_that_is_ready_says_so_and_in_detail_who_it_is() -> None:
    health = Health()

    health.ready(version="1.2", engine="preview")

    assert health.http_status == 200
    assert health.short() == {"status": "ok"}
    assert health.full() == {"status": "ok", "version": "1.2", "engine": "preview"}


def test_a_broken_worker_never_gets_well_again() -> None:
    health = Health()

    health.unhealthy("the GPU fell off the bus")
    health.ready()

    assert health.short() == {"status": "unhealthy"}
    assert health.full()["reason"] == "the GPU fell off the bus"


def test_whoever_may_ask_for_the_reason_reads_no_secret() -> None:
    health = Health()

    health.unhealthy("no weights at https://user:pass@example.com/w?token=s3cr3t any more")

    assert health.full()["reason"] == "no weights at https://example.com/w any more"


def test_what_broke_under_one_door_is_known_at_the_other() -> None:
    health = Health()
    health.check()

    health.unhealthy("the GPU fell off the bus")

    with pytest.raises(WorkerBroken, match="fell off the bus"):
        health.check()
