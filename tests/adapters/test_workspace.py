"""Workspaces: nothing outlives its job, not even one that crashed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.workspace import Workspaces

#: A worker that lends itself a workspace, fills it, says where, and waits to be killed.
WORKER = """
import sys
from pathlib import Path
from adapters.workspace import Workspaces
with Workspaces(Path(sys.argv[1]))() as files:
    (files / "face.bin").write_bytes(b"x" * 1000)
    print(files, flush=True)
    sys.stdin.read()
"""


def test_every_byte_of_a_job_dies_with_it(tmp_path: Path) -> None:
    workspaces = Workspaces(tmp_path)

    with workspaces() as files:
        (files / "below").mkdir()
        (files / "below" / "face.bin").write_bytes(b"face")

    assert list(tmp_path.iterdir()) == []


def test_every_byte_of_a_job_that_fails_dies_with_it(tmp_path: Path) -> None:
    def job() -> None:
        with Workspaces(tmp_path)() as files:
            (files / "face.bin").write_bytes(b"face")
            raise RuntimeError("the job failed")

    with pytest.raises(RuntimeError):
        job()

    assert list(tmp_path.iterdir()) == []


def test_only_the_worker_itself_can_read_a_workspace(tmp_path: Path) -> None:
    with Workspaces(tmp_path)() as files:
        assert files.stat().st_mode & 0o077 == 0


def test_two_jobs_never_share_a_workspace(tmp_path: Path) -> None:
    workspaces = Workspaces(tmp_path)

    with workspaces() as one, workspaces() as other:
        assert one != other


def test_what_a_killed_worker_left_is_swept_and_what_a_living_one_uses_stays(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living,
    ):
        assert killed.stdout is not None
        assert living.stdout is not None
        left, used = (
            Path(worker.stdout.readline().decode().strip()) for worker in (killed, living)
        )
        killed.send_signal(signal.SIGKILL)
        killed.wait()

        Workspaces(tmp_path).sweep()

        assert not left.exists()
        assert (used / "face.bin").exists()
