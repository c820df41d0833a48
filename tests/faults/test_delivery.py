"""Cases 39 and 40: stores that fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.delivery.service import Act, Fault, Service, hang, refuse, reset
from tests.faults.aftermath import Watched, verdict
from tests.faults.bucket import delivering, is_true, objects

STORES_FAULT = ("processing_error", True, "upload")
OWNERS_FAULT = ("processing_error", False, "upload")
BUSY = refuse(503, "SlowDown")


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, good: Mapping[str, str], store: Service
) -> Iterator[Watched]:
    with delivering(tmp_path_factory.mktemp("delivery"), good, store) as worker:
        yield worker


@pytest.mark.parametrize(
    ("act", "times"),
    [
        pytest.param(BUSY, 2, id="39 twice unavailable"),
        pytest.param(reset, 1, id="39 reset in the middle"),
    ],
)
def test_a_store_that_recovers_gets_the_video(
    worker: Watched, service: Service, name: str, act: Act, times: int
) -> None:
    service.faults = [Fault("PUT", ".mp4", act, times)]

    success = worker.film(musetalk_job_id=name)

    assert success.metrics.attempts["upload"] == times + 1
    assert is_true(service, success)


@pytest.mark.parametrize(
    ("code", "word", "variable"),
    [
        pytest.param(403, "SignatureDoesNotMatch", "B2_APP_KEY", id="39 wrong key"),
        pytest.param(404, "NoSuchBucket", "B2_BUCKET_NAME", id="39 no bucket"),
    ],
)
def test_a_store_that_only_its_owner_can_put_right_is_told_by_the_variable(
    worker: Watched, service: Service, code: int, word: str, variable: str
) -> None:
    service.faults = [Fault(method, "", refuse(code, word), 99) for method in ("GET", "PUT")]

    failure = worker.fail()
    service.faults.clear()

    assert verdict(failure) == OWNERS_FAULT
    assert variable in failure.error_message


@pytest.mark.parametrize(
    "act", [pytest.param(BUSY, id="40 for ever unavailable"), pytest.param(hang, id="40 too slow")]
)
def test_a_store_that_does_not_recover_cannot_outlast_the_job_and_nothing_can_be_seen(
    worker: Watched, service: Service, name: str, act: Act
) -> None:
    service.faults = [Fault("PUT", ".mp4", act, 99)]

    failure = worker.fail(musetalk_job_id=name, deadline_seconds=2)
    service.faults.clear()

    assert verdict(failure) == STORES_FAULT
    assert objects(service, name) == []
    assert service.unfinished() == []
