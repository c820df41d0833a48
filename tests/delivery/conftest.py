from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.service import Service, open_service
from tests.delivery.worker import Make, bucket_runtime, directory_runtime


@pytest.fixture(scope="session")
def one_service() -> Iterator[Service]:
    with open_service() as service:
        yield service


@pytest.fixture
def service(one_service: Service) -> Iterator[Service]:
    """A store with one empty bucket."""
    yield one_service
    one_service.empty()


@pytest.fixture(params=["a store that compares", "B2", "a directory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Return what builds workers, with every kind of place to deliver to."""
    if request.param == "a directory":
        return lambda **ports: directory_runtime(tmp_path / "out", **ports)
    service = request.getfixturevalue("service")
    service.compares = request.param != "B2"
    return lambda **ports: bucket_runtime(service.url, **ports)
