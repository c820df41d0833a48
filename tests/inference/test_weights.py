"""Which files the networks need, and which of two serves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inference.weights import (
    WEIGHTS,
    Network,
    WeightsMissing,
    find_weights,
    missing_weights,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory that has every file, as far as its name goes."""
    for file in WEIGHTS:
        (tmp_path / file.path).parent.mkdir(exist_ok=True)
        (tmp_path / file.path).touch()
    return tmp_path


def test_every_network_has_one_file_and_every_file_is_pinned() -> None:
    networks = [file.network for file in WEIGHTS if file.network]

    assert sorted(networks) == sorted(Network)
    for file in WEIGHTS:
        assert re.fullmatch(r"[0-9a-f]{40}", file.revision), file.path
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256 or ""), file.path
        assert file.size_bytes, file.path


@pytest.mark.parametrize("network", Network)
def test_a_network_that_is_missing_is_named_with_the_command_that_brings_it(
    directory: Path, network: Network
) -> None:
    found = find_weights(directory, network)
    found.unlink()

    with pytest.raises(WeightsMissing) as missing:
        find_weights(directory, network)

    assert found.name in str(missing.value)
    assert "musetalk-worker weights fetch" in str(missing.value)


def test_a_converted_file_is_preferred_and_is_enough(directory: Path) -> None:
    converted = directory / "musetalkV15/unet.safetensors"
    converted.touch()

    both = find_weights(directory, Network.UNET)
    (directory / "musetalkV15/unet.pth").unlink()
    one = find_weights(directory, Network.UNET)

    assert both == one == converted
    assert missing_weights(directory) == []


def test_what_is_missing_is_listed_by_its_published_name(directory: Path) -> None:
    (directory / "musetalkV15/unet.pth").unlink()
    (directory / "whisper/config.json").unlink()

    missing = missing_weights(directory)

    assert [file.path for file in missing] == ["musetalkV15/unet.pth", "whisper/config.json"]
