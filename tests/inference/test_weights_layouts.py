"""Where the weights are found on a machine that nobody has told where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inference.weights import WEIGHTS, locate_weights

CACHED = "huggingface-cache/hub/models--someone--musetalk-slim"
OLD, NEW = "0" * 40, "f" * 40


@pytest.fixture
def usual(tmp_path: Path) -> Path:
    """Name the directory where the weights lie if they lie nowhere else."""
    return tmp_path / "weights"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Return what is mounted, with nothing in it."""
    volume = tmp_path / "runpod-volume"
    volume.mkdir()
    return volume


def fill(directory: Path, *, converted: bool = False) -> Path:
    """Put every file into a directory, as far as its name goes."""
    for file in WEIGHTS:
        path = directory / (file.converted if converted and file.converted else file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return directory


def cache(volume: Path, commit: str) -> Path:
    """Cache a commit as the hub's library does: what it has are links to what is stored once."""
    stored = fill(volume / CACHED / "blobs" / commit, converted=True)
    snapshot = volume / CACHED / "snapshots" / commit
    for file in stored.rglob("*.*"):
        link = snapshot / file.relative_to(stored)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return snapshot


def network_volume(volume: Path) -> Path:
    return fill(volume / "musetalk/weights")


def cached_model(volume: Path) -> Path:
    return cache(volume, NEW)


@pytest.mark.parametrize("layout", [network_volume, cached_model])
def test_what_runpod_mounts_is_found(
    usual: Path, volume: Path, layout: Callable[[Path], Path]
) -> None:
    place = layout(volume)

    assert locate_weights(usual, volume) == place


def test_weights_of_the_image_come_first_and_a_cached_model_before_a_volume(
    usual: Path, volume: Path
) -> None:
    on_volume, cached = network_volume(volume), cached_model(volume)

    without = locate_weights(usual, volume)
    fill(usual)

    assert on_volume.exists()
    assert without == cached
    assert locate_weights(usual, volume) == usual


def test_of_two_commits_the_one_that_the_main_branch_has_is_taken(
    usual: Path, volume: Path
) -> None:
    older, newer = cache(volume, OLD), cache(volume, NEW)

    unnamed = locate_weights(usual, volume)
    (volume / CACHED / "refs").mkdir()
    (volume / CACHED / "refs/main").write_text(f"{NEW}\n")

    assert unnamed == older
    assert locate_weights(usual, volume) == newer


@pytest.mark.parametrize("layout", [network_volume, cached_model])
def test_a_place_that_lacks_a_file_is_none(
    usual: Path, volume: Path, layout: Callable[[Path], Path]
) -> None:
    place = layout(volume)
    (place / "whisper/config.json").unlink()

    assert locate_weights(usual, volume) == usual


def test_a_cached_model_of_something_else_is_passed_over(usual: Path, volume: Path) -> None:
    other = volume / "huggingface-cache/hub/models--a--b/snapshots" / NEW
    other.mkdir(parents=True)
    (other / "config.json").touch()

    place = network_volume(volume)

    assert locate_weights(usual, volume) == place


def test_without_any_volume_the_usual_directory_is_the_one_to_complain_about(usual: Path) -> None:
    assert locate_weights(usual, usual / "not mounted") == usual
