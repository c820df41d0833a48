"""Give a worker thousands of damaged files: ``python -m tests.fuzz``; ``make fuzz`` does so.

``SEED`` (the clock's) and ``COUNT`` (2000) are read from the environment. What fails is kept in
``tests/regressions``, whose files the tests replay.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path

from tests.corpus.mutants import Mutant, mutants
from tests.corpus.specimen import Material
from tests.corpus.trial import Outcome, Trial, run_trials

REGRESSIONS = Path(__file__).parent / "regressions"
#: Files on the disk at a time, and files for one worker before it is replaced.
ROUND, TOGETHER = 120, 6


def main() -> int:
    """Return how many files failed, at most 1."""
    seed = int(os.environ.get("SEED") or time.time())
    count = int(os.environ.get("COUNT") or 2000)
    _tell(f"SEED={seed} COUNT={count}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        supply = mutants(Material.prepare(place), seed, count)
        came: Counter[str] = Counter()
        failures = []
        while batch := list(islice(supply, ROUND)):
            for mutant, outcome in _tried(batch, place / "round"):
                came[outcome.came(mutant.role)] += 1
                if fault := outcome.fault():
                    failures.append(mutant.name)
                    _keep(mutant, fault)
            _tell(f"{came.total()} of {count}: {dict(came)}")
    _tell("\n  ".join([f"{len(failures)} failures with SEED={seed}", *failures]))
    return min(1, len(failures))


def _tried(batch: list[Mutant], place: Path) -> list[tuple[Mutant, Outcome]]:
    place.mkdir()
    trials = []
    for mutant in batch:
        path = place / mutant.name
        path.write_bytes(mutant.content)
        trials.append(Trial(path, [mutant.role]))
    outcomes = run_trials(trials, place, together=TOGETHER)
    shutil.rmtree(place)
    return list(zip(batch, outcomes, strict=True))


def _keep(mutant: Mutant, fault: str) -> None:
    _tell(f"{mutant.name}: {fault}")
    (REGRESSIONS / mutant.name).write_bytes(mutant.content)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
