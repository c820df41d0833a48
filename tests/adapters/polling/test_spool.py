"""Reports on disk: what was written is there after any crash, and nothing else is."""

from __future__ import annotations

import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.orchestrator import Message
from adapters.polling.spool import Spool

FIRST = Message("/internal/jobs/1/progress", {"status": "succeeded", "output_url": "https://ü"})
SECOND = Message("/internal/jobs/2/progress", {"status": "failed", "error": "{}"})


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let no file grow beyond some kilobytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def kept(directory: Path) -> list[Message]:
    """Return what a worker that starts now finds."""
    return [letter.message for letter in Spool(directory).letters()]


def test_what_was_put_is_there_for_the_next_worker_oldest_first(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "new" / "spool")

    spool.put(FIRST)
    spool.put(SECOND)

    assert kept(spool.directory) == [FIRST, SECOND]


def test_what_was_taken_is_gone_and_the_rest_is_not(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first = spool.put(FIRST)
    spool.put(SECOND)

    spool.remove(first)
    spool.remove(first)

    assert kept(tmp_path) == [SECOND]


def test_what_nobody_takes_is_kept_aside_for_people(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first = spool.put(FIRST)

    spool.put_aside(first)

    (aside,) = (tmp_path / "refused").iterdir()
    assert kept(tmp_path) == []
    assert "/internal/jobs/1/progress" in aside.read_text()


def test_what_a_crash_left_half_written_is_swept(tmp_path: Path) -> None:
    Spool(tmp_path).put(FIRST)
    (tmp_path / "0001.part").write_text('{"path": "/inter')

    assert kept(tmp_path) == [FIRST]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[]", b'"x"', b"{}", b'{"path": 1, "body": {}}', b'{"path": "/"']
)
def test_a_damaged_letter_holds_up_none_of_the_others(tmp_path: Path, content: bytes) -> None:
    Spool(tmp_path).put(FIRST)
    (tmp_path / "0000.json").write_bytes(content)

    assert kept(tmp_path) == [FIRST]
    assert (tmp_path / "refused" / "0000.json").read_bytes() == content


@pytest.mark.usefixtures("small_files")
def test_a_disk_without_room_says_so_and_keeps_nothing_by_halves(tmp_path: Path) -> None:
    spool = Spool(tmp_path)

    with pytest.raises(OSError, match="too large"):
        spool.put(Message("/internal/jobs/1/progress", {"error": "x" * 100_000}))

    assert kept(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["refused"]


def test_a_place_where_nothing_can_be_kept_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        Spool(tmp_path / "file" / "spool")


def test_nobody_else_reads_reports(tmp_path: Path) -> None:
    Spool(tmp_path / "avatars" / "reports" / "worker-1")

    made = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert len(made) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}
