"""Fetching the weights: everything once, nothing wrong, nothing half."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE

from inference.weights import Network, Verdict, WeightsError, WeightsFile, verify_weights
from inference.weights.fetch import ABANDONED_SECONDS, fetch_weights
from inference.weights.lock import LOCK_NAME, NANOSECONDS
from tests.hub import REVISION, Hub, open_hub, published

UNET, CONFIG = b"\x01parameters" * 1000, b'{"heads": 8}'
LISTING = (
    published(
        "unet/unet.pth",
        UNET,
        name="v15/unet.pth",
        network=Network.UNET,
        converted="unet/unet.safetensors",
    ),
    published("unet/config.json", CONFIG),
)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Open a hub that has what is listed."""
    with open_hub() as hub:
        hub.offer((LISTING[0], UNET), (LISTING[1], CONFIG))
        yield hub


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Name a weights directory that is not there yet."""
    return tmp_path / "weights"


def fetch(
    directory: Path, hub: Hub, listing: tuple[WeightsFile, ...] = LISTING
) -> list[WeightsFile]:
    """Fetch from the hub, and leave the progress unseen."""
    return list(fetch_weights(directory, lambda *_: None, listing, hub.url))


def tree(directory: Path) -> set[str]:
    """Return everything below a directory that is not a directory."""
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }


def test_an_empty_directory_gets_every_file_and_a_lock_and_nothing_else(
    directory: Path, hub: Hub
) -> None:
    fetched = fetch(directory, hub)

    lock = json.loads((directory / LOCK_NAME).read_text())
    assert fetched == list(LISTING)
    assert (directory / "unet/unet.pth").read_bytes() == UNET
    assert (directory / "unet/config.json").read_bytes() == CONFIG
    assert tree(directory) == {"unet/unet.pth", "unet/config.json", LOCK_NAME}
    assert lock["unet/unet.pth"]["sha256"] == hashlib.sha256(UNET).hexdigest()
    assert lock["unet/unet.pth"]["revision"] == REVISION
    assert not [place for place in directory.iterdir() if place.name.startswith(".")]


def test_progress_tells_how_much_of_each_file_has_come(directory: Path, hub: Hub) -> None:
    told: list[tuple[str, int]] = []

    fetch_weights(
        directory, lambda file, size_bytes: told.append((file.path, size_bytes)), LISTING, hub.url
    )

    assert told[-2:] == [("unet/unet.pth", len(UNET)), ("unet/config.json", len(CONFIG))]


def test_a_second_fetch_asks_for_nothing_and_writes_nothing(directory: Path, hub: Hub) -> None:
    fetch(directory, hub)
    asked, written_ns = len(hub.asked), (directory / LOCK_NAME).stat().st_mtime_ns

    fetched = fetch(directory, hub)

    assert fetched == []
    assert len(hub.asked) == asked
    assert (directory / LOCK_NAME).stat().st_mtime_ns == written_ns


def test_the_lock_holds_in_a_container_image_whose_layers_keep_whole_seconds(
    directory: Path, hub: Hub
) -> None:
    fetch(directory, hub)

    lock = json.loads((directory / LOCK_NAME).read_text())
    for file in LISTING:
        mtime_ns = (directory / file.path).stat().st_mtime_ns
        assert mtime_ns % NANOSECONDS == 0
        assert lock[file.path]["mtime_ns"] == mtime_ns


def test_files_that_were_brought_by_other_means_are_not_fetched_again(
    directory: Path, hub: Hub
) -> None:
    (directory / "unet").mkdir(parents=True)
    (directory / "unet/unet.pth").write_bytes(UNET)

    fetched = fetch(directory, hub)

    assert [file.path for file in fetched] == ["unet/config.json"]


def test_a_converted_file_spares_the_published_one(directory: Path, hub: Hub) -> None:
    (directory / "unet").mkdir(parents=True)
    (directory / "unet/unet.safetensors").write_bytes(b"slim")

    fetched = fetch(directory, hub)

    assert [file.path for file in fetched] == ["unet/config.json"]


@pytest.mark.parametrize("content", [b"{}", b'{"heads": 9}'])
def test_a_file_that_is_wrong_is_replaced(directory: Path, hub: Hub, content: bytes) -> None:
    fetch(directory, hub)
    (directory / "unet/config.json").write_bytes(content)

    fetched = fetch(directory, hub)

    assert [file.path for file in fetched] == ["unet/config.json"]
    assert (directory / "unet/config.json").read_bytes() == CONFIG


@pytest.mark.parametrize(
    ("content", "fault"),
    [(CONFIG[:-3], "wrong size"), (CONFIG.replace(b"8", b"9"), "wrong checksum")],
)
def test_a_file_that_is_not_as_published_is_refused_and_leaves_nothing(
    directory: Path, hub: Hub, content: bytes, fault: str
) -> None:
    hub.offer((LISTING[1], content))

    with pytest.raises(WeightsError) as refused:
        fetch(directory, hub)

    for word in ("unet/config.json", "someone/tiny", fault, "musetalk-worker weights fetch"):
        assert word in str(refused.value)
    # What came before it was right, and stays.
    assert tree(directory) == {"unet/unet.pth", LOCK_NAME}


def test_a_file_that_the_hub_has_not_is_named_with_what_the_hub_said(
    directory: Path, hub: Hub
) -> None:
    hub.files.clear()

    with pytest.raises(WeightsError, match=r"unet/unet\.pth .+ from someone/tiny: .*404.*"):
        fetch(directory, hub)

    assert tree(directory) == set()


def test_a_connection_that_breaks_is_taken_up_where_it_broke(directory: Path, hub: Hub) -> None:
    # The client takes note every 10 MiB of how far it has come.
    large = bytes(DOWNLOAD_CHUNK_SIZE) + UNET
    listing = (published("large.bin", large),)
    hub.offer((listing[0], large))
    hub.breaks_at = DOWNLOAD_CHUNK_SIZE + 4000

    fetch(directory, hub, listing)

    ranges = [seen.headers["range"] for seen in hub.asked if "range" in seen.headers]
    assert ranges == [f"bytes={DOWNLOAD_CHUNK_SIZE}-"]
    assert (directory / "large.bin").read_bytes() == large


def test_what_is_not_publicly_known_is_pinned_when_it_first_comes(
    directory: Path, hub: Hub
) -> None:
    unknown = (replace(LISTING[0], size_bytes=None, sha256=None),)
    fetch(directory, hub, unknown)
    (directory / "unet/unet.pth").unlink()
    hub.offer((LISTING[0], UNET.replace(b"\x01", b"\x02")))

    with pytest.raises(WeightsError, match="wrong checksum"):
        fetch(directory, hub, unknown)

    assert verify_weights(directory, unknown)[0].verdict is Verdict.MISSING


def test_a_converted_file_that_changed_is_not_papered_over(directory: Path, hub: Hub) -> None:
    (directory / "unet").mkdir(parents=True)
    (directory / "unet/unet.safetensors").write_bytes(b"slim")
    fetch(directory, hub)
    (directory / "unet/unet.safetensors").write_bytes(b"slimmer")

    with pytest.raises(WeightsError, match=r"unet/unet\.safetensors is not what .+: convert it"):
        fetch(directory, hub)

    assert (directory / "unet/unet.safetensors").exists()


def test_what_a_killed_fetch_left_is_removed_and_a_running_one_is_left_alone(
    directory: Path, hub: Hub
) -> None:
    abandoned, running = directory / ".incoming-old", directory / ".incoming-new"
    long_ago = time.time() - ABANDONED_SECONDS - 1
    for place in (abandoned, running):
        place.mkdir(parents=True)
        (place / "half").write_bytes(UNET[:100])
        os.utime(place, (long_ago, long_ago))
    os.utime(abandoned / "half", (long_ago, long_ago))

    fetch(directory, hub)

    assert not abandoned.exists()
    assert (running / "half").exists()


def test_a_place_that_cannot_be_written_to_is_said_so(tmp_path: Path, hub: Hub) -> None:
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(WeightsError, match="cannot be written"):
        fetch(file / "weights", hub)
