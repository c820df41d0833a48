"""Children: bounded, watched, told no secret, and gone when their time is over."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from handler.errors import ToolMissing
from inference.media.child import (
    ADDRESS_SPACE_BYTES,
    CPU_SECONDS,
    OPEN_FILES,
    Child,
    ChildFailed,
    reading,
    writing,
)

#: Long enough for a busy machine, if nothing is wrong; and short enough to wait for what is.
PATIENT, IMPATIENT = 20, 0.2

confined = pytest.mark.skipif(not shutil.which("prlimit"), reason="bounds need Linux's prlimit")


def said(child: Child, size: int = 4096) -> str:
    """Return what a child says until its end."""
    buffer = np.empty(size, np.uint8)
    count = child.read_into(buffer, PATIENT)
    return buffer[:count].tobytes().decode()


# -- reading ---------------------------------------------------------------------------------------


def test_what_a_child_says_is_read() -> None:
    with reading(["echo", "hello"]) as child:
        text = said(child)
        child.finish(PATIENT)

    assert text == "hello\n"


def test_a_buffer_is_filled_however_small_the_pieces_come() -> None:
    buffer = np.empty(100_000, np.uint8)

    with reading(["yes"]) as child:
        count = child.read_into(buffer, PATIENT)

    assert count == 100_000
    assert buffer.tobytes() == b"y\n" * 50_000


def test_a_child_that_says_nothing_is_given_up() -> None:
    with reading(["sleep", "1000"]) as child:
        with pytest.raises(ChildFailed, match=r"no data for 0\.2 s"):
            child.read_into(np.empty(1, np.uint8), IMPATIENT)


def test_a_child_that_does_not_end_is_given_up() -> None:
    with reading(["sleep", "1000"]) as child:
        with pytest.raises(ChildFailed, match=r"did not end within 0\.2 s"):
            child.finish(IMPATIENT)


def test_a_bad_end_is_told_with_what_the_child_complained_of() -> None:
    with reading(["bash", "-c", "echo the moon is missing >&2; exit 3"]) as child:
        with pytest.raises(ChildFailed, match="exit code 3: the moon is missing"):
            child.finish(PATIENT)


def test_a_complaint_does_not_tell_where_the_worker_keeps_its_files(tmp_path: Path) -> None:
    with reading(["cat", f"{tmp_path}/missing"]) as child:
        with pytest.raises(ChildFailed) as failure:
            child.finish(PATIENT)

    assert "No such file" in f"{failure.value}"
    assert f"{tmp_path}" not in f"{failure.value}"


def test_a_complaint_without_end_is_cut_short() -> None:
    with reading(["bash", "-c", "yes complain | head -c 1000000 >&2; exit 1"]) as child:
        with pytest.raises(ChildFailed) as failure:
            child.finish(PATIENT)

    assert len(f"{failure.value}") < 1000


# -- writing ---------------------------------------------------------------------------------------


def test_what_is_written_reaches_the_child(tmp_path: Path) -> None:
    data = np.arange(2_000_000, dtype=np.uint32).view(np.uint8)

    with writing(["dd", f"of={tmp_path}/copy", "status=none"]) as child:
        child.write(data, PATIENT)
        child.finish(PATIENT)

    assert (tmp_path / "copy").read_bytes() == data.tobytes()


def test_a_child_that_takes_nothing_is_given_up() -> None:
    with writing(["sleep", "1000"]) as child:
        with pytest.raises(ChildFailed, match=r"took no data for 0\.2 s"):
            child.write(np.zeros(10_000_000, np.uint8), IMPATIENT)


def test_a_child_that_ends_too_soon_is_named_by_its_own_complaint() -> None:
    with writing(["bash", "-c", "echo I have enough >&2; exit 4"]) as child:
        with pytest.raises(ChildFailed, match="exit code 4: I have enough"):
            child.write(np.zeros(10_000_000, np.uint8), PATIENT)


def test_a_child_that_ends_too_soon_without_complaint_has_failed_all_the_same() -> None:
    with writing(["true"]) as child:
        with pytest.raises(ChildFailed, match="before it had everything"):
            child.write(np.zeros(10_000_000, np.uint8), PATIENT)


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [reading, writing])
def test_a_child_is_gone_once_nobody_is_interested(start: Callable, running: Callable) -> None:
    with start(["sleep", "1000"]):
        assert len(running()) == 1

    assert not running()


def test_a_child_is_gone_when_its_user_fails(running: Callable) -> None:
    with pytest.raises(LookupError), reading(["sleep", "1000"]):
        raise LookupError

    assert not running()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's word of a process's end")
def test_a_childs_own_children_go_with_it() -> None:
    with reading(["bash", "-c", "sleep 1000 & printf %09d $!; exec sleep 1000"]) as child:
        grandchild = os.pidfd_open(int(said(child, size=9)))
        assert not select.select([grandchild], [], [], 0)[0]

    ended, _, _ = select.select([grandchild], [], [], PATIENT)
    os.close(grandchild)
    assert ended


def test_a_child_that_will_not_listen_goes_too(running: Callable) -> None:
    deaf = "trap '' TERM INT HUP; echo deaf; while :; do read -t 1000 < <(:); done"
    with reading(["bash", "-c", deaf]) as child:
        assert said(child, size=5) == "deaf\n"

    assert not running()


# -- bounds ----------------------------------------------------------------------------------------


def test_a_child_knows_none_of_the_workers_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B2_APP_KEY", "secret")

    with reading(["env"]) as child:
        environment = said(child)

    names = {line.partition("=")[0] for line in environment.splitlines()}
    assert names <= {"PATH", "LC_ALL", "_"}
    assert "secret" not in environment


def test_a_child_has_none_of_the_workers_open_files() -> None:
    with Path(__file__).open() as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003 - it takes no keyword
        with reading(["bash", "-c", "echo /dev/fd/*"]) as child:
            names = said(child).split()

    # Its input, output and complaints, and what the listing itself opens.
    assert len(names) <= 4


def test_a_child_cannot_ask_the_terminal_anything() -> None:
    with reading(["cat"]) as child:
        text = said(child)
        child.finish(PATIENT)

    assert text == ""


@pytest.mark.parametrize("start", [reading, writing])
def test_a_program_that_is_not_there_is_named(start: Callable) -> None:
    with (
        pytest.raises(ToolMissing, match="no-such-program is not installed"),
        start(["no-such-program"]),
    ):
        pass


@confined
def test_a_child_may_not_grow_or_open_files_or_dump_its_memory_without_bound() -> None:
    with reading(["bash", "-c", "ulimit -v; ulimit -n; ulimit -c; ulimit -t"]) as child:
        bounds = said(child).split()

    assert bounds == [f"{ADDRESS_SPACE_BYTES // 1024}", f"{OPEN_FILES}", "0", f"{CPU_SECONDS}"]


@confined
def test_a_child_that_computes_for_ever_is_ended_by_the_system() -> None:
    with reading(["bash", "-c", "while :; do :; done"], cpu_seconds=1) as child:
        with pytest.raises(ChildFailed, match="exit code -9"):
            child.finish(PATIENT)


@confined
def test_a_child_that_grows_too_much_fails_alone() -> None:
    greedy = f"x = bytearray({2 * ADDRESS_SPACE_BYTES})"

    with reading(["python3", "-c", greedy]) as child:
        with pytest.raises(ChildFailed, match="MemoryError"):
            child.finish(PATIENT)


@confined
def test_a_child_that_only_reads_cannot_fill_the_disk(tmp_path: Path) -> None:
    target = tmp_path / "flood"

    with reading(["dd", "if=/dev/zero", f"of={target}", "bs=1M", "count=100"]) as child:
        with pytest.raises(ChildFailed):
            child.finish(PATIENT)

    assert target.stat().st_size <= 16 * 1024**2


def test_a_child_that_writes_may_write_a_whole_video(tmp_path: Path) -> None:
    target = tmp_path / "video"

    with writing(["dd", "if=/dev/zero", f"of={target}", "bs=1M", "count=40"]) as child:
        child.finish(PATIENT)

    assert target.stat().st_size == 40 * 1024**2
