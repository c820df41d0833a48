"""The contract's own examples, as fixtures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# What a property costs in time says more about the machine than about the property.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

CONTRACT = Path(__file__).parents[1] / "contract"


def read_contract(name: str) -> dict[str, Any]:
    return json.loads((CONTRACT / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def contract() -> Callable[[str], dict[str, Any]]:
    return read_contract


@pytest.fixture
def job() -> dict[str, Any]:
    return read_contract("job")
