"""Give files to workers, a process for every few of them, and say what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

#: Workers that run side by side.
PROCESSES = 2
#: What no file may cost: time as a face or as a voice, memory of a child, disk.
MOST_SECONDS = 20
MOST_CHILD_MB = 300
MOST_DISK_MB = 10
ALLOWED = frozenset({"success", "media_error"})


@dataclass(frozen=True, slots=True)
class Trial:
    """A file, and what it is to be taken for."""

    path: Path
    roles: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one file."""

    #: Result and seconds by role.
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    #: What an honest job gave after that.
    then: str = "none"
    #: Peaks: of the largest child so far, and of what lay in the workspace.
    child_mb: float = 0
    disk_mb: float = 0
    #: Files and processes that should be gone.
    left: Sequence[str] = ()
    #: How the worker ended, if not well.
    crash: str = ""

    def came(self, role: str) -> str:
        """Return "success", or the code of the failure."""
        result = self.results.get(role, {})
        return str(result.get("error_code") or result.get("status") or self.crash)

    def fault(self) -> str | None:
        """Say what no file may do to a worker, if this one did."""
        if self.crash:
            return self.crash
        for role, result in self.results.items():
            if result.get("error_type", "success") not in ALLOWED:
                return f"as a {role}: {result['error_code']}: {result['error_message']}"
            if self.seconds[role] > MOST_SECONDS:
                return f"as a {role} it took {self.seconds[role]:.0f} s"
        for what, found, most in (
            ("a child's memory", self.child_mb, MOST_CHILD_MB),
            ("the workspace", self.disk_mb, MOST_DISK_MB),
        ):
            if found > most:
                return f"{what} grew to {found:.0f} MB"
        if self.left:
            return f"left behind: {self.left}"
        return None if self.then == "success" else f"the job after it: {self.then}"


def run_trials(trials: Sequence[Trial], place: Path, *, together: int = 1) -> list[Outcome]:
    """Give files to workers, some ``together`` to one, and to each an honest job after them."""
    groups = list(_groups(trials, together))
    shares = [groups[first::PROCESSES] for first in range(PROCESSES)]
    places = [place / f"{first}" for first in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as crowd:
        done = list(crowd.map(_run_share, shares, places))
    answers: list[list[Outcome]] = [[]] * len(groups)
    for first, share in enumerate(done):
        answers[first::PROCESSES] = share
    return [outcome for answer in answers for outcome in answer]


def _groups(trials: Iterable[Trial], size: int) -> Iterable[list[Trial]]:
    rest = iter(trials)
    while group := list(islice(rest, size)):
        yield group


def _run_share(groups: Sequence[Sequence[Trial]], place: Path) -> list[list[Outcome]]:
    temporary = place / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    orders = [
        [{"path": f"{trial.path}", "roles": [*trial.roles]} for trial in group] for group in groups
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.corpus.victim", f"{place}"],
        input="".join(json.dumps(order) + "\n" for order in orders),
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": f"{temporary}", "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    return [[Outcome(**outcome) for outcome in json.loads(line)] for line in lines]
