"""The commands around the weights: lines to read, exit codes to script with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from adapters.weights_commands import weights_app
from inference.weights import WEIGHTS, Network
from inference.weights.lock import LOCK_NAME
from tests.hub import Hub, open_hub, published

UNET, CONFIG = b"parameters" * 100, b'{"heads": 8}'
LISTING = (
    published("unet.pth", UNET, network=Network.UNET, converted="unet.safetensors"),
    published("config.json", CONFIG),
)
WORKER = Path(sys.executable).with_name("musetalk-worker")

Weights = Callable[[str], Result]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Open a hub that has what is listed."""
    with open_hub() as hub:
        hub.offer((LISTING[0], UNET), (LISTING[1], CONFIG))
        yield hub


@pytest.fixture
def weights(hub: Hub, tmp_path: Path) -> Weights:
    """Return what runs a command on a directory that is empty at first."""
    app = weights_app(LISTING, hub.url)
    return lambda command: CliRunner().invoke(
        app, [command], env={"MUSETALK_WEIGHTS_DIR": str(tmp_path)}
    )


def test_what_was_fetched_is_right_and_its_terms_are_told(weights: Weights, tmp_path: Path) -> None:
    fetched = weights("fetch")
    verified = weights("verify")
    again = weights("fetch")

    assert (fetched.exit_code, verified.exit_code, again.exit_code) == (0, 0, 0)
    terms = "  someone/tiny: MIT\n"
    assert fetched.stdout == f"{tmp_path}: 2 fetched, 0 were right.\n{terms}"
    assert "unet.pth" in fetched.stderr
    assert verified.stdout == "unet.pth     ok\nconfig.json  ok\n"
    assert again.stdout == f"{tmp_path}: 0 fetched, 2 were right.\n{terms}"


def test_a_file_that_is_not_as_published_fails_the_fetch(weights: Weights, hub: Hub) -> None:
    hub.offer((LISTING[1], CONFIG.upper()))

    fetched = weights("fetch")

    assert fetched.exit_code == 1
    assert fetched.stdout == ""
    assert "config.json came from someone/tiny with the wrong checksum" in fetched.stderr


def test_each_fault_has_a_line_and_the_command_that_mends_it(
    weights: Weights, tmp_path: Path
) -> None:
    (tmp_path / "unet.pth").write_bytes(UNET[1:])

    verified = weights("verify")

    assert verified.exit_code == 1
    assert verified.stdout == "unet.pth     wrong size\nconfig.json  missing\n"
    assert "run `musetalk-worker weights fetch`" in verified.stderr


def test_what_is_not_known_is_pinned_and_then_held_to_it(weights: Weights, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG)
    (tmp_path / "unet.safetensors").write_bytes(b"slim")

    first, second = weights("verify"), weights("verify")
    (tmp_path / "unet.safetensors").write_bytes(b"trim")
    third = weights("verify")

    assert (first.exit_code, second.exit_code, third.exit_code) == (0, 0, 1)
    assert "unet.safetensors  unknown: pinned now\n" in first.stdout
    assert "unet.safetensors  ok\n" in second.stdout
    assert "unet.safetensors  wrong checksum\n" in third.stdout
    assert "convert again, or delete and fetch, unet.safetensors." in third.stderr


def test_a_damaged_lock_is_no_traceback(weights: Weights, tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("{")

    done = [weights("fetch"), weights("verify")]

    assert [one.exit_code for one in done] == [1, 1]
    assert all("delete it" in one.stderr for one in done)


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(weights_app(), ["verify"], env={"MAX_FPS": "many"})

    assert done.exit_code == 2
    assert "MAX_FPS" in done.stderr


def test_a_mirror_that_gives_something_else_is_found_out(hub: Hub, tmp_path: Path) -> None:
    hub.offer((WEIGHTS[0], b"something else"))
    env = {
        "PATH": os.environ["PATH"],
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "MUSETALK_WEIGHTS_DIR": str(tmp_path / "weights"),
    }

    done = subprocess.run(
        [str(WORKER), "weights", "fetch"], env=env, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "musetalkV15/unet.pth came from TMElyralab/MuseTalk with the wrong size" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "weights").rglob("*.pth"))


def test_the_command_line_starts_without_the_libraries_that_take_long() -> None:
    script = "import sys, adapters.cli; print(*sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    loaded = set(done.stdout.split())
    assert "inference.weights" in loaded
    assert not loaded & {"torch", "huggingface_hub", "rich.progress", "numpy", "boto3", "cv2"}
