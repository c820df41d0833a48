"""What the tests of the engine's parts share."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import pytest


@pytest.fixture
def running() -> Callable[[], list[str]]:
    """Return a way to name the children of this process that are not Python's own."""

    def names() -> list[str]:
        children = psutil.Process().children(recursive=True)
        return [child.name() for child in children if not child.name().startswith("python")]

    return names
