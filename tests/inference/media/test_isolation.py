"""What holds the programs that open media is found out by asking one of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.media.child import ChildFailed
from inference.media.isolation import Isolation, probe_isolation

#: Put a shell script in the place of prlimit.
StandIn = Callable[[str], None]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    def standing_in(script: str) -> None:
        (tmp_path / "prlimit").write_text(f"#!/bin/sh\nREAL={shutil.which('prlimit')}\n{script}\n")
        (tmp_path / "prlimit").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return standing_in


def test_children_are_held_by_the_limits_that_they_are_given() -> None:
    assert probe_isolation() is Isolation.RLIMIT


def test_without_the_program_that_sets_limits_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}")

    assert probe_isolation() is Isolation.NONE


@pytest.mark.parametrize(
    "bounded", ["", '"$REAL" --nofile=256 --'], ids=["none of them", "one of them"]
)
def test_limits_that_were_asked_for_and_not_set_are_not_claimed(
    stand_in: StandIn, bounded: str
) -> None:
    start = f'while [ "$1" != -- ]; do shift; done; shift; exec {bounded} "$@"'
    stand_in(f'case "$*" in *" -- "*) {start};; *) exec "$REAL" "$@";; esac')

    assert probe_isolation() is Isolation.NONE


def test_children_that_cannot_be_started_with_limits_are_no_children_without(
    stand_in: StandIn,
) -> None:
    stand_in("echo failed to set the AS resource limit >&2; exit 1")

    with pytest.raises(ChildFailed, match="failed to set the AS resource limit"):
        probe_isolation()
