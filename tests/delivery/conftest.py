from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.delivery.service import Service, open_service


@pytest.fixture(scope="session")
def one_service() -> Iterator[Service]:
    with open_service() as service:
        yield service


@pytest.fixture
def service(one_service: Service) -> Iterator[Service]:
    """A store with one empty bucket."""
    yield one_service
    one_service.empty()
