from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.transfer.local import DirectoryStore, FileStore, LocalFetch
from handler.errors import Cancelled, SourceUnavailable, StoreFailed
from handler.job import Job
from handler.ports import Fetched, Stored
from handler.progress import Tick
from handler.testing import FakeFetch

JobOf = Callable[..., Job]


def test_a_file_of_this_machine_is_fetched(tmp_path: Path) -> None:
    source = tmp_path / "my face, no. 1 #2?.mp4"
    source.write_bytes(b"video")
    fractions: list[float] = []

    fetched = LocalFetch(FakeFetch({}))(source.as_uri(), tmp_path / "v", fractions.append)

    assert fetched == Fetched(tmp_path / "v", 5, hashlib.sha256(b"video").hexdigest())
    assert (tmp_path / "v").read_bytes() == b"video"
    assert fractions == [1.0]


def test_a_fetched_file_outlives_the_jobs_copy(tmp_path: Path) -> None:
    source = tmp_path / "face.mp4"
    source.write_bytes(b"video")

    LocalFetch(FakeFetch({}))(source.as_uri(), tmp_path / "v", _ignore)
    (tmp_path / "v").unlink()

    assert source.read_bytes() == b"video"


def test_a_file_of_another_filesystem_is_copied(tmp_path: Path) -> None:
    # Kept by the system itself, so never on the disk of the tests.
    source = Path("/proc/self/environ")

    fetched = LocalFetch(FakeFetch({}))(source.as_uri(), tmp_path / "v", _ignore)

    assert (tmp_path / "v").read_bytes() == source.read_bytes()
    assert fetched.bytes == (tmp_path / "v").stat().st_size


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.mp4"

    with pytest.raises(SourceUnavailable) as failure:
        LocalFetch(FakeFetch({}))(missing.as_uri(), tmp_path / "v", _ignore)

    assert failure.value.message == f"Download failed: there is no file {missing}"
    assert failure.value.details["url"] == missing.as_uri()


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="there is no file"):
        LocalFetch(FakeFetch({}))(tmp_path.as_uri(), tmp_path / "v", _ignore)


def test_the_command_line_takes_urls_too(tmp_path: Path) -> None:
    fetch = LocalFetch(FakeFetch({"https://x.test/v": b"video"}))

    assert fetch("https://x.test/v", tmp_path / "v", _ignore).bytes == 5


def test_a_video_is_stored_under_its_jobs_name(
    tmp_path: Path, video: Path, make_job: JobOf
) -> None:
    fractions: list[float] = []
    folder = tmp_path / "not" / "yet"

    stored = DirectoryStore(folder)(video, make_job(), fractions.append)

    assert (folder / "job-7.mp4").read_bytes() == video.read_bytes()
    assert stored == Stored((folder / "job-7.mp4").as_uri())
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_a_job_may_name_its_own_place(tmp_path: Path, video: Path, make_job: JobOf) -> None:
    DirectoryStore(tmp_path)(video, make_job(output={"key": "eu/2026/a.mp4"}), _ignore)

    assert (tmp_path / "eu" / "2026" / "a.mp4").read_bytes() == video.read_bytes()


def test_a_job_that_is_done_again_replaces_its_video(
    tmp_path: Path, video: Path, make_job: JobOf
) -> None:
    (tmp_path / "job-7.mp4").write_bytes(b"old")

    DirectoryStore(tmp_path)(video, make_job(), _ignore)

    assert (tmp_path / "job-7.mp4").read_bytes() == video.read_bytes()


def test_a_job_that_is_taken_back_leaves_what_was_there(
    tmp_path: Path, video: Path, make_job: JobOf
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "job-7.mp4").write_bytes(b"old")

    with pytest.raises(Cancelled):
        DirectoryStore(folder)(video, make_job(), _cancelling())

    assert [file.name for file in folder.iterdir()] == ["job-7.mp4"]
    assert (folder / "job-7.mp4").read_bytes() == b"old"


def test_the_command_line_gets_exactly_the_file_it_asked_for(
    tmp_path: Path, video: Path, make_job: JobOf
) -> None:
    target = tmp_path / "out" / "demo.mp4"

    stored = FileStore(target)(video, make_job(), _ignore)

    assert target.read_bytes() == video.read_bytes()
    assert stored.url == target.as_uri()


def test_a_directory_that_cannot_be_is_not_tried_again(
    tmp_path: Path, video: Path, make_job: JobOf
) -> None:
    (tmp_path / "out").write_bytes(b"a file is in the way")

    with pytest.raises(StoreFailed) as failure:
        DirectoryStore(tmp_path / "out")(video, make_job(), _ignore)

    assert failure.value.message == "The video could not be written as job-7.mp4: File exists"
    assert not failure.value.retryable


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_may_be_tried_again_and_is_left_no_fuller(
    tmp_path: Path, video: Path, make_job: JobOf
) -> None:
    with pytest.raises(StoreFailed) as failure:
        DirectoryStore(tmp_path / "out")(video, make_job(), _ignore)

    assert failure.value.message == "The video could not be written as job-7.mp4: File too large"
    assert failure.value.retryable
    assert list((tmp_path / "out").iterdir()) == []


def _ignore(fraction: float) -> None:
    """Take no interest."""


def _cancelling() -> Tick:
    def tick(fraction: float) -> None:
        raise Cancelled("stop")

    return tick
