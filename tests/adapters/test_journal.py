from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from adapters.journal import FORGOTTEN_SECONDS, DiskJournal
from handler import Stage
from handler.errors import (
    EngineBroken,
    EngineDied,
    EngineStalled,
    FaceNotFound,
    PoisonJob,
    WorkerBroken,
)
from handler.testing import FakeClock

#: Takes a job in hand, enters a stage and is killed.
DIE = """
import os, sys
from pathlib import Path
from adapters.journal import DiskJournal
from handler import Stage

with DiskJournal(Path(sys.argv[1]))(sys.argv[2]) as note:
    note(Stage.DOWNLOAD)
    note(Stage(sys.argv[3]))
    os.kill(os.getpid(), 9)
"""


def kill_a_worker(directory: Path, job_id: str = "job-7", stage: str = "inference") -> None:
    words = [sys.executable, "-c", DIE, str(directory), job_id, stage]
    assert subprocess.run(words, check=False).returncode == -9


def try_job(journal: DiskJournal, job_id: str = "job-7", end: BaseException | None = None) -> None:
    with journal(job_id) as note:
        note(Stage.INFERENCE)
        if end:
            raise end


def test_a_job_that_killed_two_workers_is_not_tried_a_third_time(tmp_path: Path) -> None:
    kill_a_worker(tmp_path)
    kill_a_worker(tmp_path, stage="upload")

    with pytest.raises(PoisonJob, match="killed its worker 2 times") as refused:
        try_job(DiskJournal(tmp_path))

    assert refused.value.stage is Stage.UPLOAD
    assert refused.value.details == {"times_killed": 2}


@pytest.mark.parametrize("death", [EngineDied, EngineStalled, EngineBroken])
def test_a_job_that_cost_two_engines_their_process_is_not_tried_a_third_time(
    tmp_path: Path, death: type[Exception]
) -> None:
    journal = DiskJournal(tmp_path)
    for _ in range(2):
        with pytest.raises(death):
            try_job(journal, end=death("The engine is gone."))

    with pytest.raises(PoisonJob) as refused:
        try_job(journal)

    assert refused.value.stage is Stage.INFERENCE
    try_job(journal, "job-8")


def test_a_job_that_was_refused_is_refused_again_and_others_are_not(tmp_path: Path) -> None:
    kill_a_worker(tmp_path)
    kill_a_worker(tmp_path)
    journal = DiskJournal(tmp_path)

    for _ in range(2):
        with pytest.raises(PoisonJob):
            try_job(journal)
    try_job(journal, "job-8")


def test_a_job_that_killed_one_worker_gets_another_chance(tmp_path: Path) -> None:
    kill_a_worker(tmp_path)

    try_job(DiskJournal(tmp_path))

    assert list(tmp_path.iterdir()) == []


def test_a_job_that_went_well_in_between_starts_anew(tmp_path: Path) -> None:
    kill_a_worker(tmp_path)
    try_job(DiskJournal(tmp_path))
    kill_a_worker(tmp_path)

    try_job(DiskJournal(tmp_path))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "end", [None, FaceNotFound("none"), WorkerBroken("gone"), KeyboardInterrupt(), SystemExit()]
)
def test_a_job_that_the_process_survives_has_killed_nobody(
    tmp_path: Path, end: BaseException | None
) -> None:
    journal = DiskJournal(tmp_path)

    with pytest.raises(type(end)) if end else nullcontext():
        try_job(journal, end=end)

    assert list(tmp_path.iterdir()) == []


def test_what_killed_workers_is_forgotten_after_a_day(tmp_path: Path) -> None:
    kill_a_worker(tmp_path)
    kill_a_worker(tmp_path)
    clock = FakeClock()
    clock.advance(time.time())
    journal = DiskJournal(tmp_path, clock)

    with pytest.raises(PoisonJob):
        try_job(journal)
    clock.advance(FORGOTTEN_SECONDS + 1)
    try_job(journal)


def test_an_entry_that_nobody_asks_for_does_not_stay_for_ever(tmp_path: Path) -> None:
    kill_a_worker(tmp_path)

    DiskJournal(tmp_path)
    kept = len(list(tmp_path.iterdir()))
    DiskJournal(tmp_path, lambda: time.time() + FORGOTTEN_SECONDS + 1)

    assert kept == 1
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_a_living_worker_has_in_hand_too_killed_nobody(tmp_path: Path) -> None:
    ours, theirs = DiskJournal(tmp_path), DiskJournal(tmp_path)

    with ours("job-7") as note:
        note(Stage.INFERENCE)
        for _ in range(3):
            try_job(theirs)

        assert len(list(tmp_path.iterdir())) == 1


def test_a_machine_that_went_down_was_not_killed_by_its_job(tmp_path: Path) -> None:
    for _ in range(2):
        kill_a_worker(tmp_path)
        [entry] = tmp_path.iterdir()
        entry.write_text(json.dumps(json.loads(entry.read_text()) | {"boot_id": "before"}))

    try_job(DiskJournal(tmp_path))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xff", b'{"times_killed": "many"}'])
def test_an_entry_that_cannot_be_read_counts_for_nothing(tmp_path: Path, content: bytes) -> None:
    kill_a_worker(tmp_path)
    [entry] = tmp_path.iterdir()
    entry.write_bytes(content)

    try_job(DiskJournal(tmp_path))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("job_id", ["..", "../../passwd", "a" * 5000, "ä\0b", ""])
def test_no_id_leads_out_of_the_directory(tmp_path: Path, job_id: str) -> None:
    directory = tmp_path / "journal"

    with DiskJournal(directory)(job_id) as note:
        note(Stage.DOWNLOAD)
        kept = list(tmp_path.rglob("*.json"))

    assert [entry.parent for entry in kept] == [directory]


def test_a_directory_that_cannot_be_written_costs_no_job(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"in the way")

    try_job(DiskJournal(file / "journal"))

    assert file.read_bytes() == b"in the way"


def test_a_disk_that_fails_in_the_middle_costs_no_job(tmp_path: Path) -> None:
    with DiskJournal(tmp_path)("job-7") as note:
        [entry] = tmp_path.iterdir()
        entry.unlink()

        note(Stage.UPLOAD)

    assert list(tmp_path.iterdir()) == []


def test_what_is_noted_can_be_read_by_a_person(tmp_path: Path) -> None:
    with DiskJournal(tmp_path)("job-7") as note:
        note(Stage.PREPROCESSING)
        note(Stage.UPLOAD)
        [entry] = tmp_path.iterdir()
        told = json.loads(entry.read_text())

    assert (told["job_id"], told["stage"], told["times_killed"]) == ("job-7", "upload", 0)
