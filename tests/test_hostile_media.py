"""What strangers send: attacks, accidents and damage cost at most the job that brought them."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.corpus.attacks import ATTACKS, write_attacks
from tests.corpus.mutants import Mutant, mutants
from tests.corpus.specimen import NO_FACE, Material
from tests.corpus.trial import Outcome, Trial, run_trials
from tests.fuzz import REGRESSIONS

#: Mutants of every push; ``make fuzz`` tries others.
SEED, COUNT = 20_261_122, 60
#: Files that share a worker, so that the tests stay quick.
TOGETHER = 12
#: What ``make fuzz`` found, and what was mended since.
KEPT = tuple(path for path in sorted(REGRESSIONS.iterdir()) if not path.name.startswith("."))
#: However much a file says about itself, a result repeats little of it.
MOST_SAID = 4096


@dataclass(frozen=True, slots=True)
class Canary:
    """A server that nobody has a reason to speak to."""

    url: str
    disturbed: threading.Event


@contextmanager
def canary_server() -> Iterator[Canary]:
    """Notice whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        canary = Canary(f"http://127.0.0.1:{server.getsockname()[1]}", threading.Event())

        def watch() -> None:
            with suppress(OSError):
                while True:
                    with server.accept()[0]:
                        canary.disturbed.set()

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        yield canary
        server.shutdown(socket.SHUT_RDWR)
        watching.join()


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    with canary_server() as canary:
        yield canary


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def files(place: Path, canary: Canary) -> Mapping[str, Path]:
    return write_attacks(place, canary.url)


@pytest.fixture(scope="module")
def attacked(place: Path, files: Mapping[str, Path]) -> Mapping[str, Outcome]:
    """Give each file to a worker, as a face, as a voice, or as both."""
    trials = [Trial(path, [*ATTACKS[name].expected]) for name, path in files.items()]
    outcomes = run_trials(trials, place, together=TOGETHER)
    return dict(zip(files, outcomes, strict=True))


# -- attacks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "role"), [(name, role) for name in ATTACKS for role in ATTACKS[name].expected]
)
def test_a_hostile_file_is_refused_as_the_senders_fault_or_is_harmless(
    attacked: Mapping[str, Outcome], place: Path, name: str, role: str
) -> None:
    result = attacked[name].results[role]

    assert attacked[name].came(role) in ATTACKS[name].expected[role]
    if result["status"] != "success":
        assert (result["error_type"], result["retryable"]) == ("media_error", False)
        assert result["stage"] == ("preprocessing" if NO_FACE in str(result) else "validation")
        assert "stack_trace" not in result
    said = json.dumps(result)
    assert len(said) < MOST_SAID
    assert f"{place}" not in said.replace(result.get("output_url", "none"), "")


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_file_takes_little_leaves_nothing_and_the_next_job_is_done(
    attacked: Mapping[str, Outcome], name: str
) -> None:
    assert attacked[name].fault() is None


def test_no_file_makes_the_worker_speak_to_anybody(
    attacked: Mapping[str, Outcome], canary: Canary
) -> None:
    assert attacked
    assert not canary.disturbed.is_set()


def test_no_file_makes_the_worker_run_anything(
    attacked: Mapping[str, Outcome], place: Path
) -> None:
    assert attacked
    assert not [*Path().glob("executed*"), *place.rglob("executed*")]


def test_whoever_follows_a_playlist_is_noticed(tmp_path: Path) -> None:
    # Else the tests above would prove nothing.
    path = tmp_path / "playlist.m3u8"
    careless = ["ffprobe", "-v", "error", "-protocol_whitelist", "file,http,tcp", f"{path}"]
    with canary_server() as canary:
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{canary.url}/a.ts\n")

        with subprocess.Popen(careless, stderr=subprocess.DEVNULL) as process:
            noticed = canary.disturbed.wait(20)
            process.kill()

        assert noticed


# -- damage ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Mutant, Outcome]:
    """Give workers the mutants of this push, and those that once were too much for one."""
    place = tmp_path_factory.mktemp("damaged")
    files = [
        *mutants(Material.prepare(place), SEED, COUNT),
        *(Mutant(path.name, path.name.split("-")[0], path.read_bytes()) for path in KEPT),
    ]
    for mutant in files:
        (place / mutant.name).write_bytes(mutant.content)
    trials = [Trial(place / mutant.name, [mutant.role]) for mutant in files]
    return dict(zip(files, run_trials(trials, place, together=TOGETHER), strict=True))


def test_no_damage_to_an_honest_file_breaks_the_worker(
    damaged: Mapping[Mutant, Outcome],
) -> None:
    faults = {mutant.name: outcome.fault() for mutant, outcome in damaged.items()}

    assert {name: fault for name, fault in faults.items() if fault} == {}


def test_damage_is_told_from_what_can_still_be_used(damaged: Mapping[Mutant, Outcome]) -> None:
    came = [outcome.came(mutant.role) for mutant, outcome in damaged.items()]

    # If all files survived, or none, it would be the wrong damage.
    assert len(came) / 5 < came.count("success") < len(came) * 4 / 5


def test_what_was_too_much_once_is_tried_again_for_ever(
    damaged: Mapping[Mutant, Outcome],
) -> None:
    assert KEPT
    assert {path.name for path in KEPT} <= {mutant.name for mutant in damaged}


def test_a_seed_damages_the_same_files_in_the_same_way_for_ever(tmp_path: Path) -> None:
    honest = Material.prepare(tmp_path)

    first, again, other = (
        [mutant.content for mutant in mutants(honest, seed, 5)] for seed in (7, 7, 8)
    )

    assert first == again
    assert first != other
