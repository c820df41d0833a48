"""Workers whose engines have a process of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.supervised_stage import OpenStage, Stage, season


@pytest.fixture
def open_stage() -> Iterator[OpenStage]:
    """Return what opens workers of their own."""
    with season() as opened:
        yield opened


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Return a worker that every test leaves fit for the next."""
    with season() as opened:
        yield opened()
