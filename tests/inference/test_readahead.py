"""Weights that are on their way before anybody asks for them."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from bench.start import forget
from inference.weights import WeightsFile
from inference.weights.readahead import reading_ahead
from tests.hub import published

CONTENT = os.urandom(20 * 1024**2)
LISTING = (
    published("unet.pth", CONTENT, converted="unet.safetensors"),
    published("config.json", b"{}"),
)


def remembered(path: Path) -> bool:
    """Tell whether the end of a file can be had without waiting for the disk."""
    with path.open("rb") as file:
        try:
            flags = os.RWF_NOWAIT
            return os.preadv(file.fileno(), [bytearray(1)], path.stat().st_size - 1, flags) == 1
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                pytest.skip("this file system does not tell what it has in memory")
            raise


@pytest.mark.parametrize("name", ["unet.pth", "unet.safetensors"])
def test_a_start_finds_the_weights_in_memory_that_were_on_the_disk(
    tmp_path: Path, name: str
) -> None:
    weights = tmp_path / name
    weights.write_bytes(CONTENT)
    forget(weights)
    if remembered(weights):
        pytest.skip("this file system has no disk behind it")

    with reading_ahead(tmp_path, LISTING):
        pass

    assert remembered(weights)


@pytest.mark.parametrize("listing", [LISTING, ()])
def test_what_is_missing_is_left_to_whoever_needs_it(
    tmp_path: Path, listing: tuple[WeightsFile, ...]
) -> None:
    with reading_ahead(tmp_path / "nowhere", listing):
        pass

    assert "reading ahead" not in {thread.name for thread in threading.enumerate()}
