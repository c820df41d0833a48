"""Whether the weights are right, and what they are called together."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from inference.weights import (
    Network,
    Verdict,
    WeightsError,
    WeightsMissing,
    pin_findings,
    verify_weights,
    weights_identity,
)
from inference.weights.lock import LOCK_NAME, settle
from tests.hub import published

UNET, CONFIG = b"parameters" * 100, b'{"heads": 8}'
LISTING = (
    published("unet.pth", UNET, network=Network.UNET, converted="unet.safetensors"),
    published("config.json", CONFIG),
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a weights directory in which all has been right for a while, without a lock."""
    for path, content in (("unet.pth", UNET), ("config.json", CONFIG)):
        (tmp_path / path).write_bytes(content)
        settle(tmp_path / path)
    return tmp_path


def verdicts(directory: Path) -> dict[str, Verdict]:
    """Return how each file stands."""
    return {finding.path: finding.verdict for finding in verify_weights(directory, LISTING)}


def lock(directory: Path) -> None:
    """Pin what is there."""
    pin_findings(directory, verify_weights(directory, LISTING))


def test_each_fault_has_its_name(directory: Path) -> None:
    right = verdicts(directory)
    (directory / "config.json").write_bytes(CONFIG[1:])
    (directory / "unet.pth").write_bytes(UNET.upper())
    wrong = verdicts(directory)
    (directory / "config.json").unlink()
    missing = verdicts(directory)

    assert set(right.values()) == {Verdict.OK}
    assert wrong == {"unet.pth": Verdict.WRONG_CHECKSUM, "config.json": Verdict.WRONG_SIZE}
    assert missing["config.json"] is Verdict.MISSING


def test_a_converted_file_is_unknown_until_it_is_pinned_and_held_to_that(directory: Path) -> None:
    converted = directory / "unet.safetensors"
    converted.write_bytes(b"slim")

    first = verdicts(directory)
    lock(directory)
    pinned = verdicts(directory)
    converted.write_bytes(b"trim")
    changed = verdicts(directory)
    lock(directory)

    assert first["unet.safetensors"] is Verdict.UNKNOWN
    assert pinned["unet.safetensors"] is Verdict.OK
    assert changed["unet.safetensors"] is Verdict.WRONG_CHECKSUM
    # What is wrong is not pinned for right.
    assert verdicts(directory) == changed


def test_the_listing_is_believed_before_the_lock(directory: Path) -> None:
    lock(directory)
    updated = [replace(LISTING[0], sha256="0" * 64), LISTING[1]]

    findings = verify_weights(directory, updated)

    assert findings[0].verdict is Verdict.WRONG_CHECKSUM


def test_bytes_that_rot_behind_an_unchanged_time_are_found(directory: Path) -> None:
    lock(directory)
    before = (directory / "unet.pth").stat()
    (directory / "unet.pth").write_bytes(UNET.upper())
    os.utime(directory / "unet.pth", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert verdicts(directory)["unet.pth"] is Verdict.WRONG_CHECKSUM


@pytest.mark.parametrize("damage", ["", "[]", '{"unet.pth": 1}', '{"unet.pth": {"sha": ""}}'])
def test_a_lock_that_cannot_be_read_is_said_so(directory: Path, damage: str) -> None:
    (directory / LOCK_NAME).write_text(damage)

    with pytest.raises(WeightsError, match=rf"{LOCK_NAME} cannot be read .+ delete it and run"):
        verify_weights(directory, LISTING)


def test_the_identity_changes_with_any_byte_of_any_file(directory: Path) -> None:
    identities = {weights_identity(directory, LISTING)}
    for path, content in (("unet.pth", UNET.upper()), ("config.json", CONFIG.upper())):
        (directory / path).write_bytes(content)
        identities.add(weights_identity(directory, LISTING))

    assert len(identities) == 3
    assert all(identity.startswith("musetalk-1.5 ") for identity in identities)


def test_the_identity_is_the_same_with_a_lock_and_without_and_elsewhere(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for file in LISTING:
        (elsewhere / file.path).write_bytes((directory / file.path).read_bytes())

    unlocked = weights_identity(directory, LISTING)
    assert not (directory / LOCK_NAME).exists()
    lock(directory)

    assert weights_identity(directory, LISTING) == unlocked
    assert weights_identity(elsewhere, LISTING) == unlocked


def test_converted_weights_have_an_identity_of_their_own(directory: Path) -> None:
    published_identity = weights_identity(directory, LISTING)
    (directory / "unet.safetensors").write_bytes(UNET)

    assert weights_identity(directory, LISTING) != published_identity


def test_a_file_that_is_as_the_lock_left_it_is_not_read_for_the_identity(directory: Path) -> None:
    identity = weights_identity(directory, LISTING)
    lock(directory)
    before = (directory / "unet.pth").stat()
    # Only a read could tell: its size and time are as they were.
    (directory / "unet.pth").write_bytes(UNET.upper())
    os.utime(directory / "unet.pth", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert weights_identity(directory, LISTING) == identity


def test_a_start_stops_at_a_file_that_changed_since_it_was_pinned(directory: Path) -> None:
    lock(directory)
    (directory / "unet.pth").write_bytes(UNET.upper())

    with pytest.raises(WeightsError, match=r"unet\.pth is not the file it was .+ `.+ fetch`"):
        weights_identity(directory, LISTING)


def test_a_change_within_a_tick_of_the_clock_is_seen(directory: Path) -> None:
    (directory / "unet.pth").write_bytes(UNET)
    lock(directory)
    before = (directory / "unet.pth").stat()
    # A coarse clock gives both versions of a file the same time.
    (directory / "unet.pth").write_bytes(UNET.upper())
    os.utime(directory / "unet.pth", ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(WeightsError, match=r"unet\.pth"):
        weights_identity(directory, LISTING)


def test_there_is_no_identity_without_all_files(directory: Path) -> None:
    (directory / "unet.pth").unlink()

    with pytest.raises(WeightsMissing, match=r"lacks unet\.safetensors or unet\.pth: run `.+`"):
        weights_identity(directory, LISTING)
