"""What the image is made of: its lock files, its size, its record, and its two small programs."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from inference.weights.lock import LOCK_NAME, Pin, write_lock
from tests.adapters.transfer.loopback import Handler, serving
from tests.build_scripts import ROOT, Done, run_script

IMAGE, WHEEL = ROOT / "build/image.lock", ROOT / "build/wheel.lock"
LINE = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+) --hash=sha256:[0-9a-f]{64}  # \d+ bytes")
COMMIT = "0123456789" * 4


def locked(lock: Path) -> dict[str, Version]:
    """Return what a lock file names, each line of which must be a version and a checksum."""
    found = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            match = LINE.fullmatch(line)
            assert match, line
            found[match["name"]] = Version(match["version"])
    return found


@pytest.fixture(scope="module")
def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def wanted(project: Any) -> Iterator[Requirement]:
    """Yield what the worker needs in the image, and what that adds to it."""
    # lock.py itself needs uv; what is asked here does not.
    extras = re.search(r"^EXTRAS = \((.*)\)$", (ROOT / "build/lock.py").read_text(), re.MULTILINE)
    assert extras
    lines = [*project["project"]["dependencies"]]
    for extra in re.findall(r'"(\w+)"', extras[1]):
        lines += project["project"]["optional-dependencies"][extra]
    lines += (ROOT / "build/image.in").read_text(encoding="utf-8").splitlines()
    yield from (Requirement(line) for line in lines if not line.startswith("#"))


# -- lock files ------------------------------------------------------------------------------------


def test_the_lock_has_all_that_the_worker_asks_for(project: Any) -> None:
    found = locked(IMAGE)

    for requirement in wanted(project):
        name = canonicalize_name(requirement.name)
        if name != "onnxruntime":
            assert found[name] in requirement.specifier, f"{requirement}: run `make lock`"


def test_faces_are_tracked_by_the_runtime_that_knows_the_gpu_alone() -> None:
    found = locked(IMAGE)

    assert "onnxruntime-gpu" in found
    assert "onnxruntime" not in found


def test_there_is_one_cuda_in_the_image() -> None:
    found = locked(IMAGE)

    assert {name.rpartition("-")[2] for name in found if re.search(r"-cu\d+$", name)} == {"cu13"}
    assert found["nvidia-cuda-runtime"].major == 13


def test_the_workers_own_wheel_is_built_by_what_the_project_names(project: Any) -> None:
    text = (ROOT / "build/wheel.in").read_text(encoding="utf-8")

    named = [line for line in text.splitlines() if not line.startswith("#")]

    assert named == project["build-system"]["requires"]
    assert all(locked(WHEEL)[each.name] in each.specifier for each in map(Requirement, named))


# -- size ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sizes() -> dict[str, list[int]]:
    """Return the table: by layer, MB on a disk and to pull; the sums also say how many they may."""
    done = run_script("image_size")
    assert done.returncode == 0, done.stderr
    rows = (re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()[1:])
    return {name: [int(figure) for figure in figures] for name, *figures in rows}


def test_the_image_is_no_larger_than_promised(sizes: dict[str, list[int]]) -> None:
    layers = ["system: Debian 13, Python", "system: ffmpeg", "python", "weights", "code"]

    assert list(sizes) == [*layers, "without weights", "with weights"]
    assert sizes["without weights"][0] <= 6500 == sizes["without weights"][2]
    assert sizes["with weights"][0] <= 9000 == sizes["with weights"][2]
    assert abs(sizes["with weights"][0] - sum(sizes[layer][0] for layer in layers)) <= len(layers)


def test_a_change_of_the_code_ships_megabytes_only(sizes: dict[str, list[int]]) -> None:
    assert sizes["code"][0] <= 5


# -- the record ------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    directory = tmp_path / "weights"
    directory.mkdir()
    return directory


def record(tmp_path: Path, weights: Path, *words: str) -> tuple[Done, Path]:
    """Have the record of an image written."""
    path = tmp_path / "build.json"
    told = (f"{path}", "--lock", f"{IMAGE}", "--weights", f"{weights}", "--version", "1.2.3")
    return run_script("build_record", *told, *words, PYTHONPATH=f"{ROOT}"), path


def test_the_record_says_what_the_image_was_built_of(tmp_path: Path, weights: Path) -> None:
    pin = Pin("ab" * 32, 5, 1_700_000_000_000_000_000, "someone/tiny", "c0ffee")
    write_lock(weights, {"unet.safetensors": pin})

    _, path = record(tmp_path, weights, "--git-commit", COMMIT)

    assert json.loads(path.read_text(encoding="utf-8")) == {
        "format": 1,
        "version": "1.2.3",
        "git_commit": COMMIT,
        "lock_sha256": hashlib.sha256(IMAGE.read_bytes()).hexdigest(),
        "weights": {
            "unet.safetensors": {
                "sha256": "ab" * 32,
                "size_bytes": 5,
                "repository": "someone/tiny",
                "revision": "c0ffee",
            }
        },
    }


def test_what_is_not_known_is_null_in_the_record(tmp_path: Path, weights: Path) -> None:
    _, path = record(tmp_path, weights)

    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["git_commit"], found["weights"]) == (None, None)


@pytest.mark.parametrize("commit", ["main", "0.1.0", COMMIT[:7]])
def test_a_name_that_moves_is_no_commit(tmp_path: Path, weights: Path, commit: str) -> None:
    done, path = record(tmp_path, weights, "--git-commit", commit)

    assert done.returncode == 1
    assert "git rev-parse HEAD" in done.stderr
    assert not path.exists()


def test_a_lock_of_weights_that_cannot_be_read_stops_the_build(
    tmp_path: Path, weights: Path
) -> None:
    (weights / LOCK_NAME).write_text("{", encoding="utf-8")

    done, path = record(tmp_path, weights)

    assert done.returncode == 1
    assert LOCK_NAME in done.stderr
    assert not path.exists()


# -- the programs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "end"), [(200, 0), (503, 1), (404, 1)])
def test_the_health_check_says_what_the_worker_says(code: int, end: int) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "4")
        handler.end_headers()
        handler.wfile.write(b"said")

    with serving(answer) as site:
        port = site.url.rpartition(":")[2]

        done = run_script("healthcheck", PORT=port, http_proxy="http://127.0.0.1:9")

    assert done.returncode == end
    assert done.stdout == "said\n"
    assert [seen.target for seen in site.seen] == ["/hc"]


def test_where_nobody_listens_nobody_is_well() -> None:
    done = run_script("healthcheck", PORT="1")

    assert done.returncode == 1
    assert "port 1" in done.stderr


def test_packages_that_would_track_faces_on_the_cpu_stop_the_build() -> None:
    # The developers' own: the runtime without CUDA.
    done = run_script("check_packages")

    assert done.returncode == 1
    assert "onnxruntime-gpu must be installed" in done.stderr
